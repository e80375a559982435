"""A file's bytes as memory, without keeping the file open.

Python's `mmap` keeps a descriptor for each map, so a data set of some thousand shards would exceed the usual limit of
open files. The system itself needs none once a file is mapped. (From Python 3.13 on, `mmap(…, trackfd=False)` does it.)
"""

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .addresses import Addresses, lying_in
from .errors import LoaderError
from .sample_table import InSource

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,  # off_t
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_POPULATE_READ = 22  # MADV_POPULATE_READ, from Linux 5.14 on, which Python has no name for
_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """The `num_bytes` bytes of a file, mapped when first looked at; any thread may look.

    modified_ns  when it was last changed; None: that does not matter

    Can be pickled: no map travels. The map goes away with this object and the last view it gave out.
    """

    def __init__(self, path: Path, num_bytes: int, modified_ns: int | None = None) -> None:
        self.path = path
        self.num_bytes = num_bytes
        self._modified_ns = modified_ns
        self._bytes: NDArray[np.uint8] | None = None

    def view(self, start: int, size: int) -> NDArray[np.uint8]:
        """uint8 [size] from byte `start` on, read-only, without a copy; valid as long as anyone holds it.

        Raises LoaderError if the file is not there any more, or is another by its size or time than it was.
        """
        if self._bytes is None:  # two threads at once may both map it: then one map goes with its first view
            self._bytes = _map(self.path, self.num_bytes, self._modified_ns)
        return self._bytes[start : start + size]

    def advise(self, start: int, stop: int, advice: int) -> bool:
        """Tell the system what bytes [start, stop) are for, by an MADV_ constant. Whether it could take the advice.

        Without Python's lock. Raises LoaderError as `view` does.
        """
        view = self.view(start, stop - start)  # held, so that the map stays
        address, num_bytes = _pages(view)
        return bool(_libc.madvise(address, num_bytes, advice) == 0)

    def lock(self, start: int, stop: int) -> bool:
        """Keep bytes [start, stop) in memory for as long as the file is mapped. False where the limit is too low."""
        view = self.view(start, stop - start)
        address, num_bytes = _pages(view)
        return bool(_libc.mlock(address, num_bytes) == 0)

    def has_in_memory(self, places: list[int]) -> bool:
        """Whether reading the bytes at all these places would not have to wait; False, too, where nobody can tell.

        Raises LoaderError if the file cannot be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LoaderError(f"{self.path} cannot be read ({error.strerror}): see that it is still there") from error
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # asking must not make the system read on
            byte = bytearray(1)
            return all(os.preadv(descriptor, [byte], place, os.RWF_NOWAIT) for place in places)
        except OSError:  # it would have to wait, or the file system does not know the question
            return False
        finally:
            os.close(descriptor)

    def __reduce__(self) -> tuple[type["MappedFile"], tuple[Path, int, int | None]]:
        return MappedFile, (self.path, self.num_bytes, self._modified_ns)


# a file, and where in it some samples lie: first bytes and numbers of bytes, int64 [n] each
Places = tuple[MappedFile, NDArray[np.int64], NDArray[np.int64]]


class MappedRecords:
    """What records in one mapped file have in common: the samples are ranges of its bytes.

    Those that inherit set `path`, `labels`, and where in the file each sample lies: `positions`, `sizes`, int64 [N].
    Who opens them may set `in_source`, what the samples are in the source they were packed from.
    """

    path: Path
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    sizes: NDArray[np.int64]
    in_source: InSource | None = None
    _file: MappedFile | None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [size], read-only, a view of the mapped file: no copy, valid as long as anyone holds it."""
        return self._open_file(index).view(self.positions[index], self.sizes[index])

    def addresses(self, ids: NDArray[np.int64]) -> Addresses:
        """See `loaders.addresses`. Raises LoaderError as `read` does."""
        return lying_in(self.file_bytes(), self.positions[ids], self.sizes[ids])

    def places(self, ids: NDArray[np.int64]) -> Iterator[Places]:
        """Where these samples lie, file by file: see `Places`."""
        yield self._open_file(), self.positions[ids], self.sizes[ids]

    def file_bytes(self) -> NDArray[np.uint8]:
        """uint8, read-only: the whole file, as mapped. Raises LoaderError as `read` does."""
        file = self._open_file()
        return file.view(0, file.num_bytes)

    def where(self, index: int) -> str:
        """File, sample number and position."""
        return f"{self.path}, sample {index} at byte {self.positions[index]}"

    def close(self) -> None:
        """Let go of the mapped file; it goes away with the last view that `read` gave out."""
        self._file = None

    def _open_file(self, index: int | None = None) -> MappedFile:
        """Raises LoaderError, of sample `index` or of all, once it is closed."""
        file = self._file  # another thread may close it at any time
        if file is None:
            place = self.path if index is None else self.where(index)
            raise LoaderError(f"{place} cannot be read: the file has been closed")
        return file


def populate(view: NDArray[np.uint8]) -> bool:
    """Wait until a contiguous `view` is in memory, without Python's lock. False where the system cannot be asked."""
    return bool(_libc.madvise(*_pages(view), _POPULATE_READ) == 0)


def bring_in(data: NDArray[np.uint8]) -> None:
    """Wait until all of `data`, uint8 [n], is in memory: without the interpreter's lock, but on old systems."""
    if len(data) and not (data.flags.c_contiguous and populate(data)):
        data[:: mmap.PAGESIZE].max()
        data[-1:].max()


class _Mapping:
    """Owns one map. NumPy keeps it alive for as long as there are arrays that lie in it."""

    def __init__(self, address: int, num_bytes: int) -> None:
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (num_bytes,), "data": (address, True)}
        # not when the interpreter ends: other threads may still be reading
        weakref.finalize(self, _libc.munmap, address, num_bytes).atexit = False


def _pages(view: NDArray[np.uint8]) -> tuple[int, int]:
    """Address and number of bytes of the whole pages that `view` lies in."""
    before = view.ctypes.data % mmap.PAGESIZE
    return view.ctypes.data - before, len(view) + before


def _map(path: Path, num_bytes: int, modified_ns: int | None) -> NDArray[np.uint8]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            # sets packed anew often have the very size of the old, and then other samples at the places that are known
            if status.st_size != num_bytes or modified_ns not in (None, status.st_mtime_ns):
                raise LoaderError(f"{path} has changed since it was opened: start again")
            address = _libc.mmap(None, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
            if address == _FAILED:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LoaderError(f"{path} cannot be read ({error.strerror}): see that it is still there") from error
    return np.asarray(_Mapping(address, num_bytes))
