"""Calling the native kernel: a table of rows in, finished images out."""

import ctypes
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..addresses import address_of
from ..resampling import Resampling
from ..stage_writer import UNTIMED, StageWriter

# `Row` of feedrate.h: what is stored (address and bytes; without an address the row is left alone), its seek points
# (without an address there are none), the sample's size, the rectangle, two flags, and what reading took so far where
# that is noted
ROW = np.dtype(
    [
        ("address", np.uint64),
        ("num_bytes", np.int64),
        ("seek_address", np.uint64),
        ("seek_bytes", np.int64),
        ("width", np.int32),
        ("height", np.int32),
        ("rect", np.int32, 4),
        ("is_raw", np.int32),
        ("flip", np.int32),
        ("read_wall_ns", np.int64),
        ("read_cpu_ns", np.int64),
    ]
)
_FILTERS: dict[Resampling, int] = {"area": 0, "exact": 1, "bicubic": 2}  # `Filter` of feedrate.h
_MOST_SHARE = 8  # of a file's bytes, that its seek points take; what is smaller than that is decoded soon enough


class Kernel:
    """One thread's means of making images of one size. Its memory is that of the largest window decoded so far.

    size_px  side of the square output;  fill  uint8 value per channel beyond a sample's border
    resize   see `loaders.resampling.resample`
    vectors  whether to use the processor's vector instructions: the bits are the same without
    times    notes what reading, decoding and all the rest take
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        size_px: int,
        fill: Sequence[int],
        resize: Resampling = "area",
        vectors: bool = True,
        times: StageWriter = UNTIMED,
    ) -> None:
        self._paint, self._copy = library.feedrate_paint, library.feedrate_copy
        self._size_px = size_px
        self._state = library.feedrate_new(size_px, bytes(fill), _FILTERS[resize], vectors)
        if not self._state:
            raise MemoryError("the native kernel finds no memory, or a libjpeg other than it was compiled for")
        self._times = times  # held, since the kernel writes to its memory
        library.feedrate_time(self._state, times.cells.ctypes.data if times.is_on else None)
        weakref.finalize(self, library.feedrate_free, self._state).atexit = False  # other threads may still paint

    def __call__(self, table: NDArray[np.void], out: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Make the images of `table`, ROW [n], in `out`, uint8 [n, size_px, size_px, 3], contiguous.

        Returns bool [n]: False where it is for the caller to make the image, and to find out what is wrong, if
        anything is; `out` then holds anything there. The bytes at the table's addresses must stay until it returns.
        """
        assert table.dtype == ROW and table.flags.c_contiguous and out.flags.c_contiguous and out.dtype == np.uint8
        assert out.shape == (len(table), self._size_px, self._size_px, 3)
        is_done = np.zeros(len(table), dtype=np.bool_)
        self._paint(self._state, table.ctypes.data, len(table), out.ctypes.data, is_done.ctypes.data)
        return is_done

    def copy(self, table: NDArray[np.void], out: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Copy the rectangles of `table`, ROW [n], into `out`, uint8 [P, 3], contiguous, neither resized nor mirrored.

        starts  int64 [n + 1], rising, up to P: rectangle i lies from pixel starts[i] on, with room up to the next

        Returns what a call does; where there is too little room, False.
        """
        assert table.dtype == ROW and table.flags.c_contiguous and out.flags.c_contiguous and out.dtype == np.uint8
        assert starts.dtype == np.int64 and starts.flags.c_contiguous and len(starts) == len(table) + 1
        assert out.shape[1:] == (3,) and starts[0] >= 0 and starts[-1] <= len(out)
        is_done = np.zeros(len(table), dtype=np.bool_)
        places = out.ctypes.data, starts.ctypes.data, is_done.ctypes.data
        self._copy(self._state, table.ctypes.data, len(table), *places)
        return is_done


def noted_points(library: ctypes.CDLL, jpeg: NDArray[np.uint8], spacing: int = 0) -> bytes:
    """The seek points of a JPEG, uint8 [size], as seek_points.c has them; empty where there is nothing to note.

    spacing  units from one point of a row to the next; 0: as many as make 128 px

    There is for baseline files without restart markers alone, for none that is damaged anywhere (to note the points,
    every code is decoded), and not where the points would take more than an eighth of the file.
    """
    data = np.ascontiguousarray(jpeg)
    out = np.empty(data.size // _MOST_SHARE, dtype=np.uint8)
    num_bytes = library.feedrate_seek_points(address_of(data), data.size, spacing, address_of(out), out.size)
    return out[:num_bytes].tobytes()
