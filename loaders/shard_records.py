"""Records in WebDataset shards: .tar files that hold `000000000.jpg` and `000000000.cls` for each sample, in order.

Where the images lie stands in the table of samples, so nothing has to be searched for. All places are checked against
the shards' sizes before anything is used, and the first and last header of each shard against the table.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .addresses import Addresses, address_of
from .errors import FeedrateError, LoaderError
from .mapped_file import MappedFile, Places
from .records import ChannelStatistics
from .sample_table import InSource, SampleTable
from .seek_points import SeekPoints
from .shard_layout import BLOCK_BYTES, LABEL_BYTES, image_name, name_and_size, padded
from .soundness import PACK_AGAIN, refuse_samples


class ShardRecords:
    """The shards of one split, each mapped when first read from. Fulfils `loaders.records.Records`.

    `shards` (int32 [N]) says in which of `paths` a sample lies, `positions` and `sizes` (int64 [N]) where in there.
    """

    in_source: InSource | None = None

    def __init__(
        self,
        paths: Sequence[Path],
        table: SampleTable,
        classes: tuple[str, ...],
        channels: ChannelStatistics | None = None,
        seek_points: SeekPoints | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.classes = classes
        self.channels = channels
        self.seek_points = seek_points
        self.labels = table.labels(len(classes))
        self.widths, self.heights = table.sides()
        self.is_raw = np.zeros(len(self.labels), np.bool_)
        self.shards: NDArray[np.int32] = table.column("shard")
        self.positions: NDArray[np.int64] = table.column("shard_position")
        self.sizes: NDArray[np.int64] = table.column("shard_bytes")
        try:
            found = [path.stat() for path in self.paths]
            num_bytes = [status.st_size for status in found]
            _check_places(self.shards, self.positions, self.sizes, np.array(num_bytes, np.int64), table.path)
            self._check_headers()
        except OSError as error:
            raise FeedrateError(f"{error.filename} cannot be read ({error.strerror}): check its permissions") from error
        self._files: list[MappedFile] | None = [
            MappedFile(path, status.st_size, status.st_mtime_ns) for path, status in zip(self.paths, found, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [size], read-only, a view of the mapped shard: no copy, valid as long as anyone holds it."""
        return self._open_files(index)[int(self.shards[index])].view(self.positions[index], self.sizes[index])

    def addresses(self, ids: NDArray[np.int64]) -> Addresses:
        """See `loaders.addresses`. Raises LoaderError as `read` does."""
        files = self._open_files()
        shards, which = np.unique(self.shards[ids], return_inverse=True)
        memory = [files[shard].view(0, files[shard].num_bytes) for shard in shards.tolist()]
        begins = np.array([address_of(view) for view in memory], dtype=np.int64)
        return memory, begins[which] + self.positions[ids], self.sizes[ids]

    def places(self, ids: NDArray[np.int64]) -> Iterator[Places]:
        """Where these samples lie, shard by shard: see `Places`."""
        files, shards = self._open_files(), self.shards[ids]
        for shard in np.unique(shards).tolist():
            chosen = ids[shards == shard]
            yield files[shard], self.positions[chosen], self.sizes[chosen]

    def where(self, index: int) -> str:
        """Shard, name in it and position."""
        return f"{self.paths[self.shards[index]]}, {image_name(index)} at byte {self.positions[index]}"

    def close(self) -> None:
        """Let go of the mapped shards; each goes away with the last view that `read` gave out."""
        self._files = None
        if self.seek_points is not None:
            self.seek_points.close()

    def _open_files(self, index: int | None = None) -> list[MappedFile]:
        """Raises LoaderError, of sample `index` or of all, once they are closed."""
        files = self._files  # another thread may close them at any time
        if files is None:
            place = self.paths[0] if index is None else self.where(index)
            raise LoaderError(f"{place} cannot be read: the file has been closed")
        return files

    def _check_headers(self) -> None:
        """Refuse shards that are not those of the table, by the headers of their first and their last image."""
        firsts = np.flatnonzero(np.diff(self.shards, prepend=-1)).tolist()
        lasts = [first - 1 for first in [*firsts[1:], len(self)]]
        for path, *ends in zip(self.paths, firsts, lasts, strict=True):
            with open(path, "rb", buffering=0) as shard:
                for index in ends:
                    shard.seek(self.positions[index] - BLOCK_BYTES)
                    if name_and_size(shard.read(BLOCK_BYTES)) != (image_name(index), self.sizes[index]):
                        raise FeedrateError(
                            f"{path} has no {image_name(index)} of {self.sizes[index]:,} bytes at byte"
                            f" {self.positions[index]}: it was replaced or damaged, {PACK_AGAIN}"
                        )


def _check_places(
    shards: NDArray[np.int32],
    positions: NDArray[np.int64],
    sizes: NDArray[np.int64],
    num_bytes: NDArray[np.int64],
    path: Path,
) -> None:
    """Refuse samples that cannot lie where the table at `path` says, in shards of so many bytes."""
    refuse_samples((shards < 0) | (shards >= len(num_bytes)), path, "lies in a shard that does not exist")
    steps = np.diff(shards, prepend=-1)
    refuse_samples((steps != 0) & (steps != 1), path, "is not in the order of the shards")
    if shards[-1] != len(num_bytes) - 1:
        raise FeedrateError(f"{path} uses {shards[-1] + 1:,} of {len(num_bytes):,} shards: {PACK_AGAIN}")
    refuse_samples(sizes <= 0, path, "has no bytes")
    refuse_samples(
        (positions < BLOCK_BYTES) | (positions % BLOCK_BYTES != 0), path, "does not begin at a block of its shard"
    )
    refuse_samples(sizes > num_bytes[shards] - positions - LABEL_BYTES, path, "lies outside its shard")
    next_header = positions + padded(sizes) + LABEL_BYTES
    overlaps = np.zeros(len(shards), np.bool_)
    overlaps[1:] = (steps[1:] == 0) & (positions[1:] - BLOCK_BYTES < next_header[:-1])
    refuse_samples(overlaps, path, "begins before the one before it ends")
