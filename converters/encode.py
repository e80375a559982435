"""One stored image in, the bytes to pack out."""

from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from loaders.errors import FeedrateError

from .jpeg_structure import JPEG_START, JpegHead, NotAJpeg, is_whole, read_head
from .orientation import exif_orientation, jpeg_orientation, upright
from .restarts import points_of, with_restarts

_LARGEST_SIDE_PX = 65_500  # libjpeg's limit; .beton's, which stores sides in 16 bits, is hardly higher
_MOST_PIXELS = 178_956_970  # beyond which Pillow takes an image for a decompression bomb: half a gigabyte of RGB
_EXACT_COUNTS_PX = 1 << 23  # cv2.calcHist counts in float32, exact below 2**24
_SUBSAMPLINGS = ("444", "422", "420", "440", "411", "Gray")  # those every libjpeg-turbo decodes, FFCV's old one too
_COLORSPACES = ("RGB", "YCbCr", "Gray")  # CMYK and YCCK do not decode to RGB there
_REDUCTIONS = (8, 4, 2)  # scales at which libjpeg-turbo's inverse DCT is faster than the full one
_MARGIN = 3
_LARGEST_SHIFT_PX = 0.1  # at the far edge, of the stored image
# Flaws of the header alone, over which a strict decoder stumbles: every pixel is there, and the file is re-encoded.
_HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform", "unrecognized JFIF revision")


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    write_mode   in .beton: as JPEG, as raw RGB, or "mix": each image one of both (`jpeg_share` of them as JPEG)
    limit_px     of the `limited` side: larger images shrink to it (None: all stay as they come)
    quality      of JPEGs that have to be encoded; a baseline JPEG that needs no shrinking keeps its bytes
    apply_exif   turn images as EXIF says; readers of image folders, torchvision's too, ignore it
    check        of bytes that are kept: "full" decodes each image once, "structure" reads its markers alone
    restarts     code JPEGs anew, with restart markers and without loss, so that loaders decode only what a crop needs;
                 progressive ones become sequential by that and need no encoding
    seek_points  note beside JPEGs where their decoding can begin, so that loader turbo decodes only what a crop needs
    """

    write_mode: Literal["jpg", "raw", "mix"] = "jpg"
    limit_px: int | None = None
    limited: Literal["longest", "shortest"] = "longest"
    quality: int = 90
    jpeg_share: float = 0.5
    apply_exif: bool = False
    check: Literal["full", "structure"] = "full"
    restarts: bool = False
    seek_points: bool = False

    def __post_init__(self) -> None:
        if self.write_mode not in ("jpg", "raw", "mix"):
            raise FeedrateError(f"write mode '{self.write_mode}' is unknown: give jpg, raw or mix")
        if self.limit_px is not None and not 1 <= self.limit_px <= _LARGEST_SIDE_PX:
            raise FeedrateError(f"a limit of {self.limit_px} px is outside 1 … {_LARGEST_SIDE_PX}: give say 500")
        if not 1 <= self.quality <= 100:
            raise FeedrateError(f"--quality {self.quality} is outside 1 … 100: give a JPEG quality, say 90")
        if not 0 <= self.jpeg_share <= 1:
            raise FeedrateError(f"--jpeg-share {self.jpeg_share} is outside 0 … 1: give a share, say 0.5")


def holds_jpegs(formats: Collection[str], write_mode: object) -> bool:
    """Whether a set in these formats has JPEGs; `write_mode` is of .beton alone."""
    return "shards" in formats or ("beton" in formats and write_mode != "raw")


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one image: its JPEG, its pixels, and its pixels' values counted."""

    jpeg: bool
    pixels: bool
    histogram: bool = False


@dataclass(frozen=True)
class Encoded:
    """What was wanted of one image, at the size it is stored in (pixels).

    jpeg       encoded;  is_original  whether these are the bytes it came with
    pixels     uint8 [height, width, 3], before they were encoded
    histogram  int64 [3, 256], how often each value occurs in red, green and blue of those pixels
    seek_points  of the JPEG, empty where there are none
    """

    width: int
    height: int
    jpeg: bytes | None
    is_original: bool
    pixels: NDArray[np.uint8] | None
    histogram: NDArray[np.int64] | None
    seek_points: bytes = b""


class UndecodableImage(Exception):
    """The reason why an image cannot be used; the caller knows which image it is."""


def encode(stored: NDArray[np.uint8], raw_size: tuple[int, int] | None, encoding: Encoding, wanted: Wanted) -> Encoded:
    """What to pack for one image.

    stored    uint8 [size]: an encoded image or, where `raw_size` (width, height) is given, RGB pixels row by row

    Transparency is dropped, as torchvision's readers do.
    Raises UndecodableImage, and FeedrateError where what is wanted cannot be made of any image here.
    """
    if not len(stored):
        raise UndecodableImage("it is empty")
    if raw_size is not None:
        if len(stored) != 3 * raw_size[0] * raw_size[1]:
            raise UndecodableImage(
                f"it has {len(stored):,} bytes, and its pixels need {3 * raw_size[0] * raw_size[1]:,}"
            )
        return _from_pixels(stored.reshape(raw_size[1], raw_size[0], 3), encoding, wanted)
    if stored[:3].tobytes() != JPEG_START:
        return _from_pixels(_decode_with_pillow(stored, encoding), encoding, wanted)
    try:
        return _from_jpeg(stored, read_head(stored.tobytes()), encoding, wanted)
    except NotAJpeg as error:
        raise UndecodableImage(str(error)) from error
    except FeedrateError:  # of this machine, as that there is no kernel: no fault of the image
        raise
    except ValueError as error:
        if any(flaw in str(error) for flaw in _HARMLESS):
            return _from_pixels(_decode_with_pillow(stored, encoding), encoding, wanted)
        raise UndecodableImage(str(error)) from error


def _from_jpeg(stored: NDArray[np.uint8], head: JpegHead, encoding: Encoding, wanted: Wanted) -> Encoded:
    """Raises ValueError where simplejpeg finds the file damaged."""
    height, width, colorspace, subsampling = simplejpeg.decode_jpeg_header(stored)
    if colorspace not in _COLORSPACES:
        return _from_pixels(_decode_with_pillow(stored, encoding), encoding, wanted)
    size = shrunk_size(width, height, encoding)
    orientation = jpeg_orientation(stored) if encoding.apply_exif else 1
    anew = size != (width, height) or orientation != 1 or subsampling not in _SUBSAMPLINGS
    rewritten = with_restarts(stored) if encoding.restarts and wanted.jpeg and not anew else None
    if rewritten is not None:
        stored, head = rewritten, read_head(rewritten.tobytes())
    if anew or not head.is_baseline:
        pixels = upright(_decode_jpeg(stored, width, height, size), orientation)
        return _from_pixels(pixels, encoding, wanted, size[::-1] if orientation > 4 else size)
    _check_size(width, height)
    pixels = None
    points = points_of(stored) if encoding.seek_points and wanted.jpeg else b""
    if wanted.pixels or wanted.histogram:
        pixels = simplejpeg.decode_jpeg(stored, "RGB", strict=True)
    elif not points and (encoding.check == "full" or not is_whole(stored, head)):  # points are of sound files alone
        _decode_reduced(stored, -(-width // 8), -(-height // 8))  # reads all the data, and makes few pixels of them
    return Encoded(
        width,
        height,
        jpeg=stored.tobytes() if wanted.jpeg else None,
        is_original=wanted.jpeg and rewritten is None,
        pixels=pixels if wanted.pixels else None,
        histogram=_histogram(pixels) if wanted.histogram and pixels is not None else None,
        seek_points=points,
    )


def _from_pixels(
    pixels: NDArray[np.uint8], encoding: Encoding, wanted: Wanted, size: tuple[int, int] | None = None
) -> Encoded:
    """Shrink and encode; `size` (width, height) where it is known already, from before a reduced decoding."""
    height, width = pixels.shape[:2]
    new_width, new_height = size or shrunk_size(width, height, encoding)
    _check_size(new_width, new_height)
    if (new_width, new_height) != (width, height):
        pixels = _shrunk(pixels, new_width, new_height)
    jpeg, points = None, b""
    if wanted.jpeg:  # 4:2:0, as most photos have it: about a quarter fewer bytes, and faster to decode, than 4:4:4
        pixels = np.ascontiguousarray(pixels)
        jpeg = simplejpeg.encode_jpeg(pixels, quality=encoding.quality, colorspace="RGB", colorsubsampling="420")
        rewritten = with_restarts(np.frombuffer(jpeg, np.uint8)) if encoding.restarts else None
        jpeg = jpeg if rewritten is None else rewritten.tobytes()
        points = points_of(np.frombuffer(jpeg, np.uint8)) if encoding.seek_points else b""
    return Encoded(
        new_width,
        new_height,
        jpeg,
        is_original=False,
        pixels=pixels if wanted.pixels else None,
        histogram=_histogram(pixels) if wanted.histogram else None,
        seek_points=points,
    )


def shrunk_size(width: int, height: int, encoding: Encoding) -> tuple[int, int]:
    """The size (width, height) at which an image is stored: in integers, halves rounded up, no side below one pixel."""
    side = max(width, height) if encoding.limited == "longest" else min(width, height)
    limit = encoding.limit_px
    if limit is None or side <= limit:
        return width, height
    new_width, new_height = ((2 * length * limit + side) // (2 * side) for length in (width, height))
    return max(1, new_width), max(1, new_height)


def _shrunk(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Antialiased: each pixel is the mean of the area it covers.

    Down to half the size that mean is taken of four points between the pixels, in half of OpenCV's time for the area
    itself, and within 57 dB of it (median of ImageNet's photos to 256 px; JPEG at quality 90 is at 36 dB).
    """
    size = width, height
    if pixels.shape[1] <= 2 * width and pixels.shape[0] <= 2 * height:
        pixels = cv2.resize(pixels, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _check_size(width: int, height: int) -> None:
    """Refuse what could not be stored, or hardly be read again. Raises UndecodableImage."""
    if width * height > _MOST_PIXELS or max(width, height) > _LARGEST_SIDE_PX:
        raise UndecodableImage(
            f"it is {width}×{height} px, above {_MOST_PIXELS:,} or with a side above {_LARGEST_SIDE_PX:,}:"
            " shrink it (--max-side)"
        )


def _check_pixels(width: int, height: int) -> None:
    """Refuse what takes too much memory when Pillow decodes it, whole. Raises UndecodableImage."""
    if width * height > _MOST_PIXELS:
        raise UndecodableImage(
            f"it is {width}×{height} px, above {_MOST_PIXELS:,}, and no JPEG, which could be shrunk while decoding:"
            " shrink it before packing"
        )


def _decode_jpeg(stored: NDArray[np.uint8], width: int, height: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB to be shrunk to `size` (width, height), reduced while decoding if that is much smaller.

    The inverse DCT at a reduced scale is another filter than averaging areas: with _MARGIN times the pixels wanted
    still there, what comes out is the same to 48 dB (median of ImageNet's photos). Sides that a reduction does not
    divide would come out shifted, unless by less than a pixel could show.
    """
    for reduction in _REDUCTIONS:
        reduced = -(-width // reduction), -(-height // reduction)
        enough = all(have >= _MARGIN * wanted for have, wanted in zip(reduced, size, strict=True))
        shifts = [
            (have * reduction - side) / side * wanted
            for have, side, wanted in zip(reduced, (width, height), size, strict=True)
        ]
        if enough and max(shifts) <= _LARGEST_SHIFT_PX:
            return _decode_reduced(stored, *reduced)
    _check_size(width, height)
    return simplejpeg.decode_jpeg(stored, "RGB", strict=True)


def _decode_reduced(stored: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """RGB at the reduced scale that has this size."""
    _check_size(width, height)
    return simplejpeg.decode_jpeg(stored, "RGB", min_width=width, min_height=height, strict=True)


def _decode_with_pillow(stored: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of anything Pillow reads."""
    try:
        with Image.open(BytesIO(stored.tobytes())) as image:
            _check_pixels(*image.size)
            pixels = _as_rgb(image)
            return upright(pixels, exif_orientation(image)) if encoding.apply_exif else pixels
    except (UndecodableImage, MemoryError):
        raise
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, …: whatever damage leads it to
        reason = "its format is unknown" if "cannot identify" in str(error) else str(error) or repr(error)
        raise UndecodableImage(reason) from error


def _as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of an opened file. Raises UndecodableImage where nobody knows which value is white."""
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):  # a PGM, scaled from its maximum
        grey = (np.asarray(image.convert("I")) >> 8).astype(np.uint8)  # Pillow's own way to RGB clips at 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UndecodableImage(
            "its grey values are signed, of 32 bits or fractions, and nothing tells which is white: save it with 8 or"
            " 16 bits"
        )
    return np.asarray(image.convert("RGB"))


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [3, 256], exact: large images are counted in parts."""
    num_rows = max(1, _EXACT_COUNTS_PX // pixels.shape[1])
    counts = np.zeros((3, 256), np.int64)
    for top in range(0, len(pixels), num_rows):
        part = pixels[top : top + num_rows]
        for channel in range(3):
            counts[channel] += cv2.calcHist([part], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts
