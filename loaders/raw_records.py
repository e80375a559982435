"""Records in one .npy file: the pixels of all samples, one after the other, uint8 RGB.

Its array is [N, H, W, 3] where all samples have one size and flat otherwise; where each begins stands in the table.
"""

import os
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import FeedrateError
from .mapped_file import MappedFile, MappedRecords
from .records import ChannelStatistics
from .sample_table import SampleTable
from .soundness import PACK_AGAIN, one_line, refuse_samples


class RawRecords(MappedRecords):
    """One .npy file, memory-mapped. Fulfils `loaders.records.Records`.

    `positions` and `sizes` (int64 [N]) say where in the file each sample's pixels lie.
    """

    def __init__(
        self, path: Path, table: SampleTable, classes: tuple[str, ...], channels: ChannelStatistics | None = None
    ) -> None:
        self.path = path
        self.classes = classes
        self.channels = channels
        self.labels = table.labels(len(classes))
        self.widths, self.heights = table.sides()
        self.is_raw = np.ones(len(self.labels), np.bool_)
        try:
            with open(path, "rb") as file:
                shape = _read_shape(file, path)
                data_start, status = file.tell(), os.fstat(file.fileno())
        except OSError as error:
            raise FeedrateError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        num_bytes = status.st_size
        if num_bytes - data_start != prod(shape):
            raise FeedrateError(
                f"{path} has {num_bytes - data_start:,} bytes of pixels and its header says {prod(shape):,}:"
                f" it was cut short, {PACK_AGAIN}"
            )
        if len(shape) == 4:
            self._check_one_size(shape, table.path)
        starts = table.column("raw_position")
        self.sizes: NDArray[np.int64] = _sizes(self.widths, self.heights, starts, num_bytes - data_start, table.path)
        self.positions: NDArray[np.int64] = starts + data_start
        self._file = MappedFile(path, num_bytes, status.st_mtime_ns)

    def _check_one_size(self, shape: tuple[int, ...], table_path: Path) -> None:
        num_samples, height, width, _ = shape
        if num_samples != len(self):
            raise FeedrateError(
                f"{self.path} holds {num_samples:,} samples and {table_path} {len(self):,}: {PACK_AGAIN}"
            )
        other = (self.widths != width) | (self.heights != height)
        refuse_samples(other, table_path, f"is not {width}×{height} px as all of {self.path.name} are")


def _read_shape(file: BinaryIO, path: Path) -> tuple[int, ...]:
    """The array's shape, from a header as NumPy writes it; the file is left where the pixels begin."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        shape, is_fortran, dtype = readers[npy.read_magic(file)](file)
    except OSError:
        raise
    except Exception as error:  # NumPy takes the header for Python's text: damage raises many kinds of errors
        raise FeedrateError(f"{path} is not a .npy file ({one_line(error)}): {PACK_AGAIN}") from error
    is_image = len(shape) == 4 and shape[3] == 3
    if dtype != np.uint8 or is_fortran or not (len(shape) == 1 or is_image):
        raise FeedrateError(
            f"{path} holds {dtype} {list(shape)} and not uint8 [N, height, width, 3] or uint8 [bytes]: {PACK_AGAIN}"
        )
    return shape


def _sizes(
    widths: NDArray[np.int32], heights: NDArray[np.int32], starts: NDArray[np.int64], num_bytes: int, path: Path
) -> NDArray[np.int64]:
    """int64 [N] bytes a sample. Refuses samples that do not lie one after the other in `num_bytes` bytes."""
    num_pixels = widths.astype(np.int64) * heights.astype(np.int64)
    refuse_samples(num_pixels > num_bytes // 3, path, "has more pixels than there are")
    sizes: NDArray[np.int64] = 3 * num_pixels
    ends = starts + sizes
    expected = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    refuse_samples(starts != expected, path, "does not begin where the one before it ends")
    if ends[-1] != num_bytes:
        raise FeedrateError(f"{path} tells of {ends[-1]:,} bytes of pixels and there are {num_bytes:,}: {PACK_AGAIN}")
    return sizes
