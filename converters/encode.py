"""One stored image in, the bytes to pack out. Every image is decoded on the way: that is how a broken one is found."""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from loaders.errors import FeedrateError

_LARGEST_SIDE_PX = 65_535  # the format stores sides in 16 bits
_EXACT_COUNTS_PX = 1 << 23  # cv2.calcHist counts in float32, exact below 2**24
_SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")  # those every libjpeg-turbo decodes, FFCV's old one too
_COLORSPACES = ("RGB", "YCbCr", "Gray")  # CMYK and YCCK do not decode to RGB there
# Flaws of the header alone, over which a strict decoder stumbles: every pixel is there, and the file is re-encoded.
_HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform", "unrecognized JFIF revision")
JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Encoding:
    """How images are stored: as JPEG or as raw RGB, and no side longer than `max_side_px` (None: as they come).

    A JPEG that needs no shrinking keeps its bytes. `quality` is for those that have to be encoded.
    """

    write_mode: Literal["jpg", "raw"] = "jpg"
    max_side_px: int | None = None
    quality: int = 90

    def __post_init__(self) -> None:
        if self.write_mode not in ("jpg", "raw"):
            raise FeedrateError(f"write mode '{self.write_mode}' is unknown: give jpg or raw")
        if self.max_side_px is not None and not 1 <= self.max_side_px <= _LARGEST_SIDE_PX:
            raise FeedrateError(
                f"--max-side {self.max_side_px} is outside 1 … {_LARGEST_SIDE_PX}: give pixels, say 500"
            )
        if not 1 <= self.quality <= 100:
            raise FeedrateError(f"--quality {self.quality} is outside 1 … 100: give a JPEG quality, say 90")


@dataclass(frozen=True)
class Encoded:
    """What to store of one image: its bytes, its size in pixels, and whether the bytes are those it came with."""

    data: bytes
    is_raw: bool
    width: int
    height: int
    is_original: bool


class UndecodableImage(Exception):
    """The reason why an image cannot be decoded; the caller knows which image it is."""


def encode(
    stored: NDArray[np.uint8], raw_size: tuple[int, int] | None, encoding: Encoding
) -> tuple[Encoded, NDArray[np.int64]]:
    """What to pack for one image, and int64 [3, 256]: how often each value occurs in its stored red, green and blue.

    stored    uint8 [size]: an encoded image or, where `raw_size` (width, height) is given, RGB pixels row by row

    EXIF orientation is ignored, and transparency dropped, as torchvision's readers do. Raises UndecodableImage.
    """
    if raw_size is not None:
        pixels, may_keep = stored.reshape(raw_size[1], raw_size[0], 3), False
    else:
        pixels, may_keep = _decode(stored)
    height, width = pixels.shape[:2]
    new_width, new_height = _shrunk_size(width, height, encoding.max_side_px)
    if (new_width, new_height) != (width, height):
        resized = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
        pixels, may_keep = resized.astype(np.uint8, copy=False), False
    elif max(width, height) > _LARGEST_SIDE_PX:
        raise UndecodableImage(f"it is {width}×{height} px and a side may have {_LARGEST_SIDE_PX}, set --max-side")
    if encoding.write_mode == "raw":
        data = pixels.tobytes()
    elif may_keep:
        data = stored.tobytes()
    else:  # 4:2:0, as most photos have it: about a quarter fewer bytes, and faster to decode, than 4:4:4
        pixels = np.ascontiguousarray(pixels)
        data = simplejpeg.encode_jpeg(pixels, quality=encoding.quality, colorspace="RGB", colorsubsampling="420")
        pixels = simplejpeg.decode_jpeg(data, "RGB")  # the statistics are those of the pixels that will be read
    is_original = may_keep and encoding.write_mode == "jpg"
    encoded = Encoded(data, encoding.write_mode == "raw", new_width, new_height, is_original)
    return encoded, _histogram(pixels)


def _decode(stored: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """RGB pixels, and whether these very bytes can be stored as a JPEG that all our readers decode."""
    if stored[:3].tobytes() != JPEG_START:
        return _decode_with_pillow(stored), False
    try:
        _, _, colorspace, subsampling = simplejpeg.decode_jpeg_header(stored)
        if colorspace not in _COLORSPACES:
            return _decode_with_pillow(stored), False
        return simplejpeg.decode_jpeg(stored, "RGB", strict=True), subsampling in _SUBSAMPLINGS
    except ValueError as error:
        if any(flaw in str(error) for flaw in _HARMLESS):
            return _decode_with_pillow(stored), False
        raise UndecodableImage(str(error)) from error


def _decode_with_pillow(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of anything Pillow reads."""
    try:
        with Image.open(BytesIO(stored.tobytes())) as image:
            if image.mode.startswith("I;16"):  # Pillow clips 16 bits to 8 instead of scaling them
                grey = (np.asarray(image.convert("I")) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "its format is unknown" if "cannot identify" in str(error) else str(error)
        raise UndecodableImage(reason) from error


def _shrunk_size(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    """The size with the longest side at most `max_side_px`, in integers, halves rounded up."""
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    new_width, new_height = ((2 * side * max_side_px + longest) // (2 * longest) for side in (width, height))
    return max(1, new_width), max(1, new_height)


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [3, 256], exact: large images are counted in parts."""
    num_rows = max(1, _EXACT_COUNTS_PX // pixels.shape[1])
    counts = np.zeros((3, 256), np.int64)
    for top in range(0, len(pixels), num_rows):
        part = pixels[top : top + num_rows]
        for channel in range(3):
            counts[channel] += cv2.calcHist([part], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts
