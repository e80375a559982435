"""Seek points: where in a JPEG's compressed data decoding can begin, so that a crop costs little more than its area."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from . import library
from .kernel import address_of

_MOST_SHARE = 8  # of the file's bytes; what is smaller than that is decoded soon enough


def seek_points(jpeg: NDArray[np.uint8]) -> bytes:
    """What `loaders/native/seek_points.c` notes of a JPEG, uint8 [size]; empty where there is nothing to note.

    That is the case for all but baseline files without restart markers, for files damaged anywhere (to note the points,
    every code is decoded), and where the points would take more than an eighth of the file. Raises FeedrateError where
    there is no native kernel.
    """
    kernel = _kernel()
    data = np.ascontiguousarray(jpeg)
    out = np.empty(data.size // _MOST_SHARE, dtype=np.uint8)
    return out[: kernel.feedrate_seek_points(address_of(data), data.size, address_of(out), out.size)].tobytes()


@cache
def _kernel() -> ctypes.CDLL:
    kernel = library.load()
    if kernel is None:
        raise library.NotAvailable(library.why_not())
    kernel.feedrate_seek_points.restype = ctypes.c_int64
    kernel.feedrate_seek_points.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    return kernel
