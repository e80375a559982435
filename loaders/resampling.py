"""How pixels become a square of another size: the plain references, by OpenCV and by Pillow."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# what processors make one image at a time; `api.ResizeMode` has one more
Resampling = Literal["area", "exact", "bicubic"]
PILLOW_FILTERS = {"exact": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resample(pixels: NDArray[np.uint8], size_px: int, mode: Resampling) -> NDArray[np.uint8]:
    """`pixels`, uint8 [H, W, 3], as uint8 [size_px, size_px, 3].

    mode  "area": OpenCV's INTER_AREA;  "exact", "bicubic": Pillow's BILINEAR and BICUBIC, which are antialiased
    """
    size = (size_px, size_px)
    if mode == "area":
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(size, PILLOW_FILTERS[mode]))
