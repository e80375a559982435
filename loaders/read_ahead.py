"""Bringing stored bytes into memory before they are needed, in long reads instead of a page fault each."""

import contextlib
import mmap
import threading
from collections import deque
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import LoaderError
from .mapped_file import MappedFile, Places
from .plan import Plan, Shard
from .records import Records

_GAP_BYTES = 64 << 10  # reading on over a smaller gap is quicker than beginning anew
_PIECE_BYTES = 4 << 20  # what is asked for at once, so that whoever wants the thread to end does not wait for more
_BATCHES_PROBED = 16  # spread over the rest of the epoch
_SAMPLES_PROBED = 256  # of theirs

T = TypeVar("T")  # a batch, of whatever kind


@runtime_checkable
class Mapped(Protocol):
    """Records whose samples are ranges of mapped files."""

    def places(self, ids: NDArray[np.int64]) -> Iterator[Places]:
        """Where these samples lie, file by file."""
        ...


def stored_ranges(records: Mapped, ids: NDArray[np.int64]) -> Iterator[tuple[MappedFile, int, int]]:
    """(file, start, stop) of the runs of bytes that hold these samples, in the order of the files."""
    for file, positions, sizes in records.places(ids):
        if not len(positions):
            continue  # a batch of nothing but padding
        order = np.argsort(positions, kind="stable")
        starts, stops = positions[order], np.maximum.accumulate((positions + sizes)[order])  # samples may overlap
        first = np.ones(len(starts), np.bool_)
        first[1:] = starts[1:] - stops[:-1] > _GAP_BYTES
        begins = np.flatnonzero(first)
        lasts = np.append(begins[1:], len(starts)) - 1
        for start, stop in zip(starts[begins].tolist(), stops[lasts].tolist(), strict=True):
            yield file, start, stop


def read_ahead(
    batches: Generator[T], records: Records, plan: Plan, shard: Shard, position: tuple[int, int], num_ahead: int
) -> Generator[T]:
    """`batches`, those from `position` (epoch, batch) on, with the bytes of later ones being read while some are used.

    num_ahead  batches that are made beside the one asked for

    What is read are the blocks of the window in use and of the next, or, where the order has no blocks, the samples of
    two windows of some batches. Nothing is read where all is in memory, nor where records are not in mapped files.
    """
    if not isinstance(records, Mapped):
        return batches
    return _read_ahead(batches, _Reader(records, plan, shard, position[0]), position[1], num_ahead + 1)


def _read_ahead(batches: Generator[T], reader: "_Reader", start: int, num_begun: int) -> Generator[T]:
    with contextlib.closing(batches):
        if reader.is_needless(start):
            yield from batches
            return
        wanted = deque(reader.schedule(start, num_begun))
        with reader:
            number = start
            while True:
                while wanted and wanted[0][0] <= number:
                    reader.want(wanted.popleft()[1])
                if number == start:
                    reader.wait_for_first()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                yield batch
                del batch  # its memory may be used for the next
                number += 1


class _Reader:
    """A thread that asks the system to read what is wanted. A context manager: inside the block it runs."""

    def __init__(self, records: Mapped, plan: Plan, shard: Shard, epoch: int) -> None:
        self._records = records
        self._plan = plan
        self._shard = shard
        self._epoch = epoch
        self._num_batches = plan.num_batches(shard.world_size)
        self._wanted: SimpleQueue[range | None] = SimpleQueue()
        self._first_is_asked_for = threading.Event()
        self._stopping = False
        self._files: set[MappedFile] = set()
        self._thread: threading.Thread | None = None

    def is_needless(self, start: int) -> bool:
        """Whether there are no batches from `start` on, or some hundred samples of theirs all are in memory."""
        if start >= self._num_batches:
            return True
        some = range(start, self._num_batches, max(1, (self._num_batches - start) // _BATCHES_PROBED))
        ids = self._plan.ids_in(self._epoch, some, self._shard)
        with contextlib.suppress(LoaderError):
            places = self._records.places(ids[:: 1 + len(ids) // _SAMPLES_PROBED])
            return all(file.has_in_memory(starts.tolist()) for file, starts, _ in places)
        return True  # where a file cannot be read, whoever needs the sample says so

    def schedule(self, start: int, num_begun: int) -> Iterator[tuple[int, range]]:
        """(batch, range of batches): when `batch` is asked for, those are wanted. In order.

        First what is begun at once, batch by batch; then the rest of the window, then always the next window.
        """
        first = min(start + num_begun, self._num_batches)
        for batch in range(start, first):
            yield start, range(batch, batch + 1)
        asked, stop = start, self._window_stop(start, num_begun)
        if first < stop:
            yield asked, range(first, stop)
        while stop < self._num_batches:
            following = self._window_stop(stop, num_begun)
            if max(first, stop) < following:
                yield asked, range(max(first, stop), following)
            asked, stop = stop, following

    def _window_stop(self, batch: int, num_begun: int) -> int:
        window = self._plan.window(batch)
        return min(self._num_batches, batch + 2 * num_begun if window is None else window[1])

    def want(self, batches: range) -> None:
        """These batches will be needed; returns at once."""
        self._wanted.put(batches)

    def wait_for_first(self) -> None:
        """Wait until the first batch is asked for, not until it is read: else its pages would be read one by one."""
        self._first_is_asked_for.wait()

    def __enter__(self) -> "_Reader":
        self._thread = threading.Thread(target=self._run, name="feedrate-read-ahead", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wanted.put(None)
        # the collector may end a forgotten epoch anywhere, in this very thread, too
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            # where a file cannot be read, whoever needs the sample says so
            with contextlib.suppress(LoaderError):
                while (batches := self._wanted.get()) is not None and not self._stopping:
                    self._ask_for(batches)
                    self._first_is_asked_for.set()
        finally:
            self._first_is_asked_for.set()
            for file in self._files:
                file.advise(0, file.num_bytes, mmap.MADV_NORMAL)

    def _ask_for(self, batches: range) -> None:
        for file, start, stop in stored_ranges(self._records, self._plan.ids_in(self._epoch, batches, self._shard)):
            if file not in self._files:
                # a fault then reads its own page; else up to some MB around it, most of which is not needed soon
                file.advise(0, file.num_bytes, mmap.MADV_RANDOM)
                self._files.add(file)
            for piece in range(start, stop, _PIECE_BYTES):
                if self._stopping:
                    return
                file.advise(piece, min(stop, piece + _PIECE_BYTES), mmap.MADV_WILLNEED)
