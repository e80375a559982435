"""Writes `<split>.seek` (`loaders.seek_points`): what is noted of each sample's JPEG, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.seek_points import seek_name

from .outputs import Payload, Rows, cut, write_blobs


@dataclass(frozen=True)
class SeekPlace:
    """See `outputs.Place`."""

    path: Path
    positions: NDArray[np.int64]

    def write(self, payloads: Sequence[Payload]) -> None:
        """Write the samples' seek points."""
        write_blobs(self.path, self.positions, [payload.encoded.seek_points for payload in payloads])


class SeekOutput:
    """See `outputs.Output`. Of no format of its own: it goes with .beton and with shards."""

    def __init__(self, folder: Path, split: str) -> None:
        self._path = folder / seek_name(split)
        self._num_bytes = 0

    def place(self, rows: Rows, first_number: int) -> SeekPlace:
        """See `outputs.Output`."""
        sizes = rows["seek_bytes"]
        positions = self._num_bytes + np.cumsum(sizes) - sizes
        self._num_bytes += int(sizes.sum())
        return SeekPlace(self._path, positions)

    def restore(self, rows: Rows) -> None:
        """See `outputs.Output`."""
        self._num_bytes = int(rows["seek_bytes"].sum())
        cut(self._path, self._num_bytes)

    def paths_of(self, rows: Rows) -> list[Path]:
        """See `outputs.Output`."""
        return [self._path]

    def finish(self, rows: Rows) -> list[Path]:
        """Nothing stands before or behind the samples."""
        return [self._path]
