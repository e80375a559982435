"""Writes pixels alone: one `.npy` that can be mapped into memory, or put on a device, as it is.

uint8 [N, H, W, 3] where all images have the same size; else uint8 [total], image after image, row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .outputs import Payload, Rows, cut, pixel_bytes, write_at, write_blobs

HEADER_BYTES = 128  # NumPy's format lets a header be padded, so that it can be written when the shape is known


@dataclass(frozen=True)
class RawPlace:
    """See `outputs.Place`."""

    path: Path
    positions: NDArray[np.int64]

    def write(self, payloads: Sequence[Payload]) -> None:
        """Write the samples' pixels."""
        write_blobs(self.path, self.positions + HEADER_BYTES, [payload.encoded.pixels for payload in payloads])


class RawOutput:
    """See `outputs.Output`."""

    def __init__(self, folder: Path, split: str) -> None:
        self._path = folder / f"{split}.npy"
        self._num_bytes = 0

    def place(self, rows: Rows, first_number: int) -> RawPlace:
        """See `outputs.Output`."""
        sizes = pixel_bytes(rows)
        rows["raw_position"] = self._num_bytes + np.cumsum(sizes) - sizes
        self._num_bytes += int(sizes.sum())
        return RawPlace(self._path, rows["raw_position"].copy())

    def restore(self, rows: Rows) -> None:
        """See `outputs.Output`."""
        self._num_bytes = int(pixel_bytes(rows).sum()) if len(rows) else 0
        cut(self._path, HEADER_BYTES + self._num_bytes)

    def paths_of(self, rows: Rows) -> list[Path]:
        """See `outputs.Output`."""
        return [self._path]

    def finish(self, rows: Rows) -> list[Path]:
        """Write the header of NumPy's format, version 1.0."""
        sizes = np.unique(np.stack([rows["height"], rows["width"]], axis=1), axis=0)
        shape = (len(rows), *sizes[0].tolist(), 3) if len(sizes) == 1 else (self._num_bytes,)
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
        before = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        write_at(self._path, 0, before + text.ljust(HEADER_BYTES - 11).encode() + b"\n")
        return [self._path]
