"""`<split>.seek`: where decoding of each sample's JPEG can begin, beside the files that hold the JPEGs.

What `loaders.native.seek_points` notes of each sample, one after the other in the order of the samples; how many bytes
of each stands in the table of samples, as `seek_bytes`. Loader `turbo` reads it; to all else it is not there.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError
from .mapped_file import MappedFile, Places
from .soundness import PACK_AGAIN, refuse_samples


def seek_name(split: str) -> str:
    """The file's name in the packed folder."""
    return f"{split}.seek"


class SeekPoints:
    """One split's, mapped when first looked at; any thread may look. Can be pickled.

    sizes  int64 [N], bytes of each sample's; 0 where there are none
    """

    def __init__(self, path: Path, sizes: NDArray[np.int64], table: Path) -> None:
        self.path = path
        self.sizes = sizes
        refuse_samples(sizes < 0, table, "has seek points of less than no bytes")
        self._ends = np.cumsum(sizes)
        try:
            status = path.stat()
        except OSError as error:
            raise FeedrateError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        num_bytes = int(self._ends[-1])
        if status.st_size != num_bytes:
            raise FeedrateError(
                f"{path} has {status.st_size:,} bytes and {table.name} says {num_bytes:,}: it is damaged, {PACK_AGAIN}"
            )
        self._file = MappedFile(path, num_bytes, status.st_mtime_ns) if num_bytes else None

    def of(self, index: int) -> NDArray[np.uint8] | None:
        """uint8 [size], read-only, a view of the mapped file; None where there are none. Raises LoaderError."""
        position, size = self.place(index)
        return self._file.view(position, size) if size and self._file is not None else None

    def places(self, ids: NDArray[np.int64]) -> Iterator[Places]:
        """Where those of these samples lie that have any: see `Places`."""
        chosen = ids[self.sizes[ids] > 0]
        if len(chosen) and self._file is not None:
            yield self._file, self._ends[chosen] - self.sizes[chosen], self.sizes[chosen]

    def place(self, index: int) -> tuple[int, int]:
        """Where in the file a sample's begin, and how many bytes they take."""
        size = int(self.sizes[index])
        return int(self._ends[index]) - size, size
