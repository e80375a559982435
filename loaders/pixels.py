"""Stored bytes to RGB pixels, and a rectangle of them to a square: cut, resize, flip, in this order in every loader."""

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from .errors import SampleError
from .records import Records
from .resampling import Resampling, resample
from .stage_writer import UNTIMED, StageWriter
from .timed_reading import read_timed

Pixels = NDArray[np.uint8]  # [height, width, 3], red, green, blue
Stored = NDArray[np.uint8]  # [size], a sample's bytes as they are stored

_JPEG_START = b"\xff\xd8\xff"
_FAST_COLOURS = ("YCbCr", "Gray", "RGB")  # what simplejpeg turns into RGB exactly as Pillow does


Where = Callable[[], str]  # where an image is stored, for people


def _taken_once() -> Any:
    """A lock that who warns first takes for good, of all threads and of the processes that are forked later."""
    try:
        return get_context("fork").Lock()
    except OSError:  # no room in /dev/shm: then each process has its own
        return threading.Lock()


_clipping_is_said = _taken_once()


def most_pixels() -> int:
    """Of an encoded image that Pillow opens without a word: it takes larger ones for an attack, so it is to say so."""
    return Image.MAX_IMAGE_PIXELS or int(np.iinfo(np.int64).max)


def decode_image(data: Stored, where: Where | None = None) -> Image.Image:
    """An encoded image as an RGB image of Pillow's, exactly as torchvision's `ImageFolder` loads it.

    Pillow decides what is readable: bytes cut short raise OSError. EXIF rotation is ignored. Grey of more than 8 bits
    is clipped at 255: the first of such images is warned of, by its place.
    """
    image = Image.open(io.BytesIO(data.data))
    if image.mode.startswith(("I", "F")) and _clipping_is_said.acquire(block=False):
        warnings.warn(
            f"{where() if where else 'an image'} is grey of more than 8 bits, whose values above 255 all become white"
            " here, as torchvision has it, and so do those of others like it: pack the set (python tools/convert.py),"
            " which scales 16 bits to 8",
            stacklevel=2,
        )
    return image.convert("RGB")


def decode_rgb(data: Stored, where: Where | None = None) -> Pixels:
    """`decode_image` as uint8 [H, W, 3]: the plain reference for `Decoder`."""
    return np.asarray(decode_image(data, where))


class Decoder:
    """The bits of `decode_rgb`, faster for JPEG. One thread's own: the result lies in memory that the next call reuses.

    Its memory is that of the largest image seen.
    """

    def __init__(self) -> None:
        self._scratch = np.empty(0, dtype=np.uint8)

    def __call__(self, data: Stored, where: Where | None = None) -> Pixels:
        """uint8 [H, W, 3], valid until the next call."""
        if data[:3].tobytes() == _JPEG_START:
            try:
                height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
                num_bytes = 3 * height * width
                if colours in _FAST_COLOURS and height * width <= most_pixels():
                    if num_bytes > len(self._scratch):
                        self._scratch = np.empty(num_bytes, dtype=np.uint8)
                    pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=self._scratch)
                    return pixels
            except ValueError:  # it refuses all that libjpeg warns of; Pillow tells harmless oddities from cut bytes
                pass
        return decode_rgb(data, where)


def load_rgb(
    records: Records,
    index: int,
    decode: Decoder,
    times: StageWriter = UNTIMED,
    rect: list[int] | None = None,
    reads: int = 1,
) -> Pixels:
    """Sample `index` as uint8 [H, W, 3]; where stored raw, a view of what is stored.

    times  notes stages "read" and, of what is encoded, "decode"; rect, reads: see `read_timed`

    Raises SampleError, naming the sample and its place, if it cannot be read or is not of the recorded size.
    """
    data = read_timed(records, index, rect, times, reads)
    with _naming(records, index):
        if records.is_raw[index]:
            return _raw_rgb(records, index, data)
        with times.stage("decode"):
            pixels = decode(data, partial(records.where, index))
            _check_size(records, index, pixels.shape[1], pixels.shape[0])
            return pixels


def load_image(
    records: Records, index: int, times: StageWriter = UNTIMED, rect: list[int] | None = None
) -> Image.Image:
    """Sample `index` as an RGB image of Pillow's. Notes, and raises, as `load_rgb` does."""
    data = read_timed(records, index, rect, times)
    with _naming(records, index):
        if records.is_raw[index]:
            return Image.fromarray(_raw_rgb(records, index, data))
        with times.stage("decode"):
            image = decode_image(data, partial(records.where, index))
            _check_size(records, index, *image.size)
            return image


def cut(pixels: Pixels, rect: Sequence[int], fill: Sequence[int]) -> Pixels:
    """The rectangle (left, top, width, height) of `pixels`: a view if inside, else a filled copy."""
    left, top, width, height = rect
    right, bottom = left + width, top + height
    sample_h, sample_w = pixels.shape[:2]
    if left >= 0 and top >= 0 and right <= sample_w and bottom <= sample_h:
        return pixels[top:bottom, left:right]
    part = np.empty((height, width, 3), dtype=np.uint8)
    part[:] = fill
    x0, x1 = max(left, 0), min(right, sample_w)
    y0, y1 = max(top, 0), min(bottom, sample_h)
    if x0 < x1 and y0 < y1:
        part[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return part


class Renderer:
    """Cuts, resizes and flips into given memory. One thread's own.

    size_px  side of the square output;  fill  uint8 value per channel beyond the sample's border
    resize   see `resampling.resample`
    """

    def __init__(self, size_px: int, fill: Sequence[int], resize: Resampling) -> None:
        self._size_px = size_px
        self._fill = fill
        self._resize: Resampling = resize
        self._unflipped = np.empty((size_px, size_px, 3), dtype=np.uint8)
        # OpenCV would split every single resize over threads of its own, which then fight with ours over the same
        # processors. Its setting is the whole process's.
        cv2.setNumThreads(1)

    def __call__(self, pixels: Pixels, rect: Sequence[int], flip: bool, out: Pixels) -> None:
        """Write `rect` of `pixels`, uint8 [H, W, 3], to `out`, uint8 [size_px, size_px, 3], contiguous."""
        part = cut(pixels, rect, self._fill)
        if part.shape != out.shape:
            part = self._resized(part, self._unflipped if flip else out)
        if flip:
            cv2.flip(part, 1, dst=out)
        elif part is not out:
            out[:] = part

    def _resized(self, part: Pixels, out: Pixels) -> Pixels:
        if self._resize == "area":  # which OpenCV writes where it belongs
            cv2.resize(part, (self._size_px, self._size_px), dst=out, interpolation=cv2.INTER_AREA)
        else:
            out[:] = resample(part, self._size_px, self._resize)
        return out


def _raw_rgb(records: Records, index: int, data: Stored) -> Pixels:
    width, height = int(records.widths[index]), int(records.heights[index])
    if data.size != 3 * width * height:
        raise ValueError(f"it has {data.size:,} bytes and was recorded as {width}×{height} px: scan or pack again")
    return data.reshape(height, width, 3)


def _check_size(records: Records, index: int, width: int, height: int) -> None:
    recorded = int(records.widths[index]), int(records.heights[index])
    if (width, height) != recorded:
        raise ValueError(
            f"it is {width}×{height} px and was recorded as {recorded[0]}×{recorded[1]}: scan or pack again"
        )


@contextmanager
def _naming(records: Records, index: int) -> Iterator[None]:
    """Whatever goes wrong with a sample's bytes becomes a SampleError that says which sample and where it is."""
    try:
        yield
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, …
        raise SampleError(f"sample {index} ({records.where(index)}) cannot be delivered: {error}") from error
