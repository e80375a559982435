"""Whether the native kernel gives the very bits of OpenCV, Pillow and simplejpeg, as installed on this machine."""

import ctypes

import cv2
import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray

from ..addresses import address_of
from ..resampling import Resampling, resample
from ..stage_times import StageTimes
from ..stage_writer import ROW_CELLS
from .kernel import ROW, Kernel, noted_points

_SIZE_PX = 24
_FILL = (9, 99, 199)
_WIDTH, _HEIGHT = 101, 83
_BORDER = 20  # no rectangle reaches further past it
# (left, top, width, height): both sides shrink, by an odd and by a whole factor, grow, one of each, a copy, padding;
# tall ones, of the last of which Pillow resizes the height first
_RECTS = (
    *((3, 5, 61, 37), (1, 0, 97, 83), (0, 0, 48, 48), (8, 7, 72, 48), (50, 40, 13, 11), (0, 60, 23, 23)),
    *((70, 3, 11, 71), (2, 33, 90, 17), (40, 40, 24, 24), (-5, -7, 24, 24), (80, 70, 40, 30)),
    *((5, 9, 44, 54), (60, 3, 30, 71)),
)
_SUBSAMPLINGS = ("444", "422", "420", "440", "gray")


def difference(library: ctypes.CDLL) -> str:
    """What the kernel makes otherwise in mode `area`, as the end of a sentence; empty if nothing. Takes some ms."""
    if library.feedrate_stage_row_bytes() != ROW_CELLS * 8:
        return "it notes what stages take in another layout than Python reads"
    pixels = _picture()
    times = StageTimes(1)
    kernel = Kernel(library, _SIZE_PX, _FILL, times=times.writer(0))  # noted or not, pixels are the same
    if not _same(kernel, pixels, True, _expected(pixels)):
        return f"this machine's OpenCV {cv2.__version__} resizes otherwise"
    if not _copies(Kernel(library, 1, _FILL), pixels):
        return "it copies rectangles otherwise than NumPy"
    for subsampling in _SUBSAMPLINGS:
        source = np.ascontiguousarray(pixels[..., :1]) if subsampling == "gray" else pixels
        space = "gray" if subsampling == "gray" else "RGB"
        stored = np.frombuffer(simplejpeg.encode_jpeg(source, 85, space, subsampling), np.uint8)
        expected = _expected(simplejpeg.decode_jpeg(stored, "RGB"))
        points = noted_points(library, stored)
        if not points or not all(_same(kernel, stored, False, expected, noted) for noted in (b"", points)):
            return f"this machine's simplejpeg {simplejpeg.__version__} decodes otherwise"
    counts = {stage: reading.count for stage, reading in times.read().items()}
    images = 2 * len(_RECTS)
    if counts != {"read": 11 * images, "decode": 10 * images, "augment": 11 * images}:
        return "it notes what stages take otherwise than Python reads it"
    return ""


def resampling_difference(library: ctypes.CDLL, mode: Resampling) -> str:
    """The same of another mode, beyond what `difference` finds."""
    pixels = _picture()
    if not _same(Kernel(library, _SIZE_PX, _FILL, mode), pixels, True, _expected(pixels, mode)):
        return f"this machine's Pillow {PIL.__version__} resizes otherwise"
    return ""


def _same(
    kernel: Kernel, stored: NDArray[np.uint8], is_raw: bool, expected: NDArray[np.uint8], points: bytes = b""
) -> bool:
    noted = np.frombuffer(points, np.uint8)
    table = _table(stored, is_raw, 2)
    if points:
        table["seek_address"], table["seek_bytes"] = address_of(noted), noted.size
    table["flip"] = np.tile([0, 1], len(_RECTS))
    out = np.empty_like(expected)
    return bool(kernel(table, out).all()) and np.array_equal(out, expected)


def _copies(kernel: Kernel, pixels: NDArray[np.uint8]) -> bool:
    """Whether rectangles are copied to where they should lie: here each followed by a pixel that nobody may touch."""
    expected = [np.pad(part.reshape(-1, 3), ((0, 1), (0, 0))) for part in _rectangles(pixels)]
    starts = np.cumsum([0, *map(len, expected)])
    out = np.zeros((int(starts[-1]), 3), dtype=np.uint8)
    is_done = kernel.copy(_table(pixels, True, 1), out, starts)
    return bool(is_done.all()) and np.array_equal(out, np.concatenate(expected))


def _table(stored: NDArray[np.uint8], is_raw: bool, times_each: int) -> NDArray[np.void]:
    """For the kernel: all rectangles of one sample."""
    table = np.zeros(times_each * len(_RECTS), dtype=ROW)
    table["address"], table["num_bytes"] = address_of(stored), stored.size
    table["width"], table["height"], table["is_raw"] = _WIDTH, _HEIGHT, is_raw
    table["rect"] = np.repeat(_RECTS, times_each, axis=0)
    return table


def _picture() -> NDArray[np.uint8]:
    """uint8 [_HEIGHT, _WIDTH, 3]: waves with noise over them."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    noise = (x * 7919 + y * 104729 + x * y * 31) % 53
    waves = [(x * 3 + y * 2) % 256, (x * y // 5 + 80) % 256, 255 - (x + 4 * y) % 256]
    pixels: NDArray[np.uint8] = np.clip(np.stack(waves, axis=-1) + noise[..., None] - 26, 0, 255).astype(np.uint8)
    return pixels


def _rectangles(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """uint8 [height, width, 3] each, filled beyond the border."""
    padded = np.empty((_HEIGHT + 2 * _BORDER, _WIDTH + 2 * _BORDER, 3), dtype=np.uint8)
    padded[:] = _FILL
    padded[_BORDER:-_BORDER, _BORDER:-_BORDER] = pixels
    return [
        padded[top + _BORDER : top + _BORDER + height, left + _BORDER : left + _BORDER + width]
        for left, top, width, height in _RECTS
    ]


def _expected(pixels: NDArray[np.uint8], mode: Resampling = "area") -> NDArray[np.uint8]:
    """uint8 [2 · rectangles, side, side, 3]: each as it is, then mirrored."""
    images: list[NDArray[np.uint8]] = []
    for image in _rectangles(pixels):
        if image.shape != (_SIZE_PX, _SIZE_PX, 3):
            image = resample(image, _SIZE_PX, mode)
        images += [image, image[:, ::-1]]
    return np.stack(images)
