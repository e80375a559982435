"""What comes in: one split of a source, as a list of byte ranges that nobody has looked into yet.

Listing a source reads names and sizes, never an image: the images are read once, by the workers that encode them.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WHOLE_FILE = -1


@dataclass(frozen=True, slots=True)
class Stored:
    """One sample as it lies in its source, small enough to be sent to a worker.

    name      how the source calls it, unique in its split and the same on every machine: "n01440764/n01440764_1.JPEG"
    path      the file it lies in;  position, num_bytes  where (WHOLE_FILE: all of it)
    raw_size  (width, height) where the bytes are uint8 RGB pixels, row by row; None where they are an encoded image
    data      the bytes themselves, where they are not those of a file
    """

    name: str
    path: str
    position: int = 0
    num_bytes: int = WHOLE_FILE
    raw_size: tuple[int, int] | None = None
    data: bytes | None = None

    def where(self) -> str:
        """Its place, for people."""
        if self.num_bytes == WHOLE_FILE:
            return self.path
        return (
            f"{self.path}, {self.name}" if self.data is not None else f"{self.path}, {self.name} at {self.position:,}"
        )

    def read(self) -> NDArray[np.uint8]:
        """uint8 [num_bytes], read-only. Raises OSError; a file shorter than it should be gives fewer bytes."""
        if self.data is not None:
            return np.frombuffer(self.data, np.uint8)
        if self.num_bytes != WHOLE_FILE:
            return np.frombuffer(os.pread(_kept_open(self.path), self.num_bytes, self.position), np.uint8)
        with open(self.path, "rb", buffering=0) as file:
            return np.frombuffer(file.read(), np.uint8)

    def will_be_read(self) -> None:
        """Let the system fetch the bytes in the background. Never raises: whatever is wrong shows when reading."""
        if self.data is not None:
            return
        try:
            if self.num_bytes != WHOLE_FILE:
                os.posix_fadvise(_kept_open(self.path), self.position, self.num_bytes, os.POSIX_FADV_WILLNEED)
                return
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
        except OSError:
            pass


@dataclass(frozen=True, slots=True)
class BadSample:
    """Something that should be a sample and cannot be used: `where` it is, and one `reason`."""

    name: str
    where: str
    reason: str


class Samples(Protocol):
    """One split of a source.

    classes      what the source calls its classes (folders, wnids), one a label;  class_names  for people, as many
    labels       int64 [N];  num_bytes  int64 [N], as stored in the source
    bad          what was found unusable while listing (a link to nowhere, a folder that may not be read)
    num_ignored  files that are no images by their names
    notes        what listing chose or assumed, for the manifest: {"split": {"val_fraction": 0.1, "seed": 0}, …}
    """

    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    bad: Sequence[BadSample]
    num_ignored: int
    notes: dict[str, object]

    def __len__(self) -> int: ...

    def stored(self, index: int) -> Stored:
        """Sample `index`, 0 … N - 1 in the source's own order."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of names, labels, sizes and, for files, times of change: another value means another source."""
        ...


class _OpenFiles(threading.local):
    """The archives that a thread read last stay open, being read again and again; a few, for the system allows few."""

    _MOST = 64

    def __init__(self) -> None:
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __call__(self, path: str) -> int:
        if path in self._descriptors:
            self._descriptors.move_to_end(path)
        else:
            self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._descriptors) > self._MOST:
                os.close(self._descriptors.popitem(last=False)[1])
        return self._descriptors[path]


_kept_open = _OpenFiles()
