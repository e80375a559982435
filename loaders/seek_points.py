"""`<split>.seek`: where decoding of each sample's JPEG can begin, beside the files that hold the JPEGs.

What `native.kernel.noted_points` gives of each sample, one after the other in the order of the samples; how many bytes
of each stands in the table of samples, as `seek_bytes`. Loader `turbo` reads it; to all else it is not there.
"""

import contextlib
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .addresses import Addresses, lying_in
from .errors import FeedrateError, LoaderError
from .mapped_file import MappedFile
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
        try:
            status = path.stat()
        except OSError as error:
            raise FeedrateError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        refuse_samples((sizes < 0) | (sizes > status.st_size), table, "has seek points that do not fit into their file")
        self._ends = np.cumsum(sizes)
        num_bytes = int(self._ends[-1])
        if status.st_size != num_bytes:
            raise FeedrateError(
                f"{path} has {status.st_size:,} bytes and {table.name} says {num_bytes:,}: it is damaged, {PACK_AGAIN}"
            )
        self._file = MappedFile(path, num_bytes, status.st_mtime_ns) if num_bytes else None

    def of(self, index: int) -> NDArray[np.uint8] | None:
        """uint8 [size], read-only, a view of the mapped file; None where there are none. Raises LoaderError."""
        file, (position, size) = self._file, self.place(index)
        return file.view(position, size) if size and file is not None else None

    def addresses(self, ids: NDArray[np.int64]) -> Addresses:
        """See `loaders.addresses`; a size of 0 where there are none. Raises LoaderError."""
        file, sizes = self._file, self.sizes[ids]
        if file is None:
            return [], np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        return lying_in(file.view(0, file.num_bytes), self._ends[ids] - sizes, sizes)

    def will_be_read(self) -> None:
        """Have the system read the file in one go: it is small beside the samples, and asking for each would double the
        requests to the disk."""
        if self._file is not None:
            with contextlib.suppress(LoaderError):  # who asks for a sample's says so
                self._file.advise(0, self._file.num_bytes, mmap.MADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file; it goes away with the last view that `of` gave out. Then there are none."""
        self._file = None

    def place(self, index: int) -> tuple[int, int]:
        """Where in the file a sample's begin, and how many bytes they take."""
        size = int(self.sizes[index])
        return int(self._ends[index]) - size, size
