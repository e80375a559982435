"""JPEGs with restart markers every few blocks: the same pixels, and loaders decode only what a crop needs of them."""

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..addresses import address_of
from . import library

Bytes = bytes | NDArray[np.uint8]


def add_restart_markers(jpeg: Bytes) -> bytes | None:
    """The same coefficients, so the same pixels to the bit, coded anew with restart markers and without metadata.

    One sequential scan, also of a progressive file. None for what libjpeg would have to mend, for progressive files
    that leave bits out (which decoders smooth over), for CMYK and for 12 bits.
    Raises FeedrateError where there is no native kernel.
    """
    kernel, data = library.required(), _array(jpeg)
    memory = ctypes.c_void_p()
    size = kernel.feedrate_add_restarts(address_of(data), data.size, ctypes.byref(memory))
    if not size:
        return None
    try:
        return ctypes.string_at(memory, size)
    finally:
        kernel.feedrate_release(memory)


def cut_to_window(jpeg: Bytes, rect: Sequence[int]) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]] | None:
    """A smaller JPEG of what `rect`, (left, top, width, height) in pixels, needs; within it, the same bits.

    Returns the JPEG, uint8 [size], and which rectangle of the whole its pixels are. None where the file cannot be cut:
    without restart markers that fit its rows, cut short, damaged between them, or where `rect` is not all inside.
    """
    kernel, data = library.required(), _array(jpeg)
    part = np.empty(max(1, data.size), dtype=np.uint8)
    wanted, where = np.array(rect, dtype=np.int32), np.zeros(4, dtype=np.int32)
    size = kernel.feedrate_cut(address_of(data), data.size, wanted.ctypes.data, part.ctypes.data, where.ctypes.data)
    left, top, width, height = where.tolist()
    return (part[:size], (left, top, width, height)) if size else None


def _array(data: Bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else np.ascontiguousarray(data)
