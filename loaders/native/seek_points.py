"""Seek points: where in a JPEG's compressed data decoding can begin, so that a crop costs little more than its area."""

import numpy as np
from numpy.typing import NDArray

from . import library
from .kernel import noted_points


def seek_points(jpeg: NDArray[np.uint8], spacing: int = 0) -> bytes:
    """What `loaders/native/seek_points.c` notes of a JPEG, uint8 [size]; empty where there is nothing to note.

    spacing  units from one point of a row to the next; 0: as many as make 128 px

    That is the case for all but baseline files without restart markers, for files damaged anywhere (to note the points,
    every code is decoded), and where the points would take more than an eighth of the file. Raises FeedrateError where
    there is no native kernel.
    """
    return noted_points(library.required(), jpeg, spacing)
