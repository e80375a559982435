"""Bringing stored bytes into memory before they are needed, in long reads instead of a page fault each."""

import contextlib
import mmap
import threading
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

Batch = TypeVar("Batch")


@runtime_checkable
class Mapped(Protocol):
    """Records whose samples are ranges of mapped files."""

    def places(self, ids: NDArray[np.int64]) -> Iterator[Places]:
        """Where these samples lie, file by file."""
        ...


def stored_ranges(records: Mapped, ids: NDArray[np.int64]) -> Iterator[tuple[MappedFile, int, int]]:
    """(file, start, stop) of the runs of bytes that hold these samples, in the order of the files."""
    for file, positions, sizes in records.places(ids):
        order = np.argsort(positions, kind="stable")
        starts, stops = positions[order], np.maximum.accumulate((positions + sizes)[order])  # samples may overlap
        first = np.ones(len(starts), np.bool_)
        first[1:] = starts[1:] - stops[:-1] > _GAP_BYTES
        begins = np.flatnonzero(first)
        lasts = np.append(begins[1:], len(starts)) - 1
        for start, stop in zip(starts[begins].tolist(), stops[lasts].tolist(), strict=True):
            yield file, start, stop


def read_ahead(
    batches: Generator[Batch], records: Records, plan: Plan, shard: Shard, epoch: int, start: int
) -> Generator[Batch]:
    """`batches`, those from number `start` on, with the blocks of the next ones being read while some are used.

    Nothing is done, and `batches` themselves are returned, where the order has no blocks (then reading ahead would be
    as random as reading) or the records are not ranges of mapped files. Memory: the blocks of two windows.
    """
    if plan.window(start) is None or not isinstance(records, Mapped):
        return batches
    return _read_ahead(batches, _Reader(records, plan, shard, epoch), plan, start)


def _read_ahead(batches: Generator[Batch], reader: "_Reader", plan: Plan, start: int) -> Generator[Batch]:
    stop = start
    with contextlib.closing(batches), reader:
        number = start
        while True:
            if number == stop:  # a window begins: read what is left of it, if nothing is yet, and the next
                window = plan.window(number)
                assert window is not None
                if number == start:
                    reader.want(number, window[1])
                stop = window[1]
                following = plan.window(stop)
                assert following is not None
                reader.want(stop, following[1])
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
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="feedrate-read-ahead", daemon=True)

    def want(self, first: int, stop: int) -> None:
        """Batches [first, stop) will be needed; returns at once."""
        if first < self._num_batches:
            self._wanted.put(range(first, min(stop, self._num_batches)))

    def __enter__(self) -> "_Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        # where a file cannot be read, whoever needs the sample says so
        with contextlib.suppress(LoaderError):
            while (batches := self._wanted.get()) is not None:
                ids = self._plan.ids_in(self._epoch, batches, self._shard)
                for file, start, stop in stored_ranges(self._records, ids):
                    for piece in range(start, stop, _PIECE_BYTES):
                        if self._stopping:
                            return
                        file.advise(piece, min(stop, piece + _PIECE_BYTES), mmap.MADV_WILLNEED)
