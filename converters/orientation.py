"""Which way up a picture is, as EXIF says, and turning it upright."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

_TURNS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # what makes a picture upright
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def exif_orientation(image: Image.Image) -> int:
    """As EXIF says, or XMP where EXIF does not, as Pillow reads them: 1 … 8. Others count as upright."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # struct.error, SyntaxError, ValueError, …
        return 1
    return orientation if orientation in _TURNS else 1


def jpeg_orientation(stored: NDArray[np.uint8]) -> int:
    """The same of a JPEG, uint8 [size], of which nothing is decoded."""
    try:
        image = JpegImageFile(BytesIO(stored.tobytes()))  # which, unlike `Image.open`, lets pass what is very large
    except Exception:  # simplejpeg, which decodes it, will say whether it can be used
        return 1
    return exif_orientation(image)


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The picture of this orientation, turned if need be."""
    return np.ascontiguousarray(_TURNS[orientation](pixels))
