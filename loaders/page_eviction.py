"""Dropping the stored bytes of some samples from the system's page cache, and bringing them back: no root is needed."""

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .read_ahead import Mapped, stored_ranges
from .records import Records, lie_in_memory

_BUFFER_BYTES = 4 << 20
# The page cache holds what was read in one go in pieces of up to so much, and drops them as a whole or not at all: of a
# file of many samples, asking for the ranges of some alone left nine tenths of them where they were
_PIECE_BYTES = 2 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)

Range = tuple[Path, int, int]


@dataclass(frozen=True)
class StoredBytes:
    """Where samples lie on storage: (file, first byte, byte after the last), and whose maps of the files we hold."""

    ranges: tuple[Range, ...]
    records: Records

    @property
    def num_bytes(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)


@dataclass(frozen=True)
class Eviction:
    """What became of an eviction: the share of the bytes really gone, 0-1, or None and why nobody can tell."""

    gone_share: float | None
    reason: str = ""


def stored_bytes(records: Records, ids: NDArray[np.int64]) -> StoredBytes | None:
    """The bytes of these samples; None where they are in memory anyway, or nobody knows which files they lie in."""
    if lie_in_memory(records):
        return None
    ids = np.unique(ids[ids >= 0])
    if isinstance(records, Mapped):
        return StoredBytes(
            tuple((file.path, start, stop) for file, start, stop in stored_ranges(records, ids)), records
        )
    paths = [Path(records.where(int(index))) for index in ids]  # a path alone, where a sample is a file of its own
    if not all(path.is_file() for path in paths):
        return None
    return StoredBytes(tuple((path, 0, path.stat().st_size) for path in paths), records)


def let_go(stored: StoredBytes) -> None:
    """Take the bytes out of this process's map: the system keeps what any process has mapped and looked at.

    Every process that has the files mapped must do so before `evict`.
    """
    if isinstance(stored.records, Mapped):
        for file in {file for file, _, _ in stored.records.places(np.arange(len(stored.records)))}:
            file.advise(0, file.num_bytes, mmap.MADV_DONTNEED)


def evict(stored: StoredBytes) -> Eviction:
    """Ask the system to forget the bytes, and look how much of them it really has no longer.

    What the page cache may hold in one piece with them goes, too. Raises OSError where a file is gone.
    """
    let_go(stored)
    num_resident = num_pages = 0
    untold = ""
    for path, ranges in _by_file(stored.ranges):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            resident, pages = _forget(descriptor, ranges)
            if not _may_ask(descriptor):
                untold = f"the system tells only the owner of {path.name} what of it is in memory"
            elif resident:
                os.fsync(descriptor)  # what is not written yet cannot be dropped; it takes long, so not unasked
                resident, pages = _forget(descriptor, ranges)
            num_resident, num_pages = num_resident + resident, num_pages + pages
        finally:
            os.close(descriptor)
    if untold or not num_pages:
        return Eviction(None, untold or "no bytes are stored")
    return Eviction(1 - num_resident / num_pages)


def bring_in(stored: StoredBytes) -> None:
    """Have the bytes in the page cache, reading what is missing. Raises OSError where a file is gone."""
    buffer = bytearray(_BUFFER_BYTES)
    for path, ranges in _by_file(stored.ranges):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, stop in ranges:
                for place in range(start, stop, _BUFFER_BYTES):
                    os.preadv(descriptor, [memoryview(buffer)[: min(_BUFFER_BYTES, stop - place)]], place)
        finally:
            os.close(descriptor)


def resident_pages(ranges: Iterable[Range]) -> tuple[int, int]:
    """(pages in memory, pages) of these bytes. Raises OSError where a file is gone."""
    num_resident = num_pages = 0
    for path, of_file in _by_file(ranges):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            resident, pages = _residency(descriptor, of_file)
            num_resident, num_pages = num_resident + resident, num_pages + pages
        finally:
            os.close(descriptor)
    return num_resident, num_pages


def is_virtual_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether a host around this machine may hold files in a cache of its own, which nobody here can drop."""
    try:
        return any(" hypervisor" in line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    except OSError:
        return False


def _by_file(ranges: Iterable[Range]) -> Iterator[tuple[Path, list[tuple[int, int]]]]:
    """The ranges of each file, widened to whole pages."""
    files: dict[Path, list[tuple[int, int]]] = {}
    for path, start, stop in ranges:
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        files.setdefault(path, []).append((first, -(-stop // mmap.PAGESIZE) * mmap.PAGESIZE))
    yield from files.items()


def _may_ask(descriptor: int) -> bool:
    """Linux since 5.2 answers "in memory" of every page of a file that one neither owns nor may write to."""
    return os.fstat(descriptor).st_uid == os.geteuid() or os.geteuid() == 0


def _forget(descriptor: int, ranges: list[tuple[int, int]]) -> tuple[int, int]:
    """(pages still in memory, pages) after the system was asked to forget them and what is in one piece with them."""
    touched = (range(start // _PIECE_BYTES, -(-stop // _PIECE_BYTES)) for start, stop in ranges)
    for piece in sorted({piece for pieces in touched for piece in pieces}):
        os.posix_fadvise(descriptor, piece * _PIECE_BYTES, _PIECE_BYTES, os.POSIX_FADV_DONTNEED)
    return _residency(descriptor, ranges)


def _residency(descriptor: int, ranges: list[tuple[int, int]]) -> tuple[int, int]:
    """(pages in memory, pages) of the ranges of an open file."""
    num_bytes = os.fstat(descriptor).st_size
    if not num_bytes:
        return 0, 0
    num_resident = num_pages = 0
    with mmap.mmap(descriptor, num_bytes, prot=mmap.PROT_READ) as mapped:
        whole = np.frombuffer(mapped, np.uint8)
        for start, stop in ranges:
            length = min(stop, num_bytes) - start
            answers = np.empty(-(-length // mmap.PAGESIZE), np.uint8)
            if _libc.mincore(whole.ctypes.data + start, length, answers.ctypes.data):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            num_resident += int((answers & 1).sum())
            num_pages += len(answers)
        del whole
    return num_resident, num_pages
