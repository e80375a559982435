"""What worker processes and their parent tell each other outside the queues, in memory they share."""

import math
import mmap
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from .errors import LoaderError


class Board:
    """What each worker is at, which batches are finished, and whether anybody still wants them."""

    def __init__(self, num_workers: int, num_slabs: int, start: int) -> None:
        self._at = shared((num_workers, 2), np.int64)
        self._at[:] = -1
        self._leaving = shared((1,), np.uint8)
        self._born = shared((num_workers,), np.uint8)
        self._finished = shared((num_slabs, 2), np.int64)  # the batch that lies there, and when it was finished
        self._finished[:] = -1
        self._next = start

    def be_born(self, worker: int) -> None:
        """A worker runs."""
        self._born[worker] = True

    def is_born(self, worker: int) -> bool:
        """Whether it ever ran."""
        return bool(self._born[worker])

    def finish(self, batch: int) -> None:
        """A worker has made this batch."""
        slot = self._finished[batch % len(self._finished)]
        slot[1] = time.perf_counter_ns()
        slot[0] = batch  # last: from here on it counts as finished

    def take(self, batch: int) -> int:
        """The parent takes this batch. When it was finished, by time.perf_counter_ns."""
        self._next = batch + 1
        return int(self._finished[batch % len(self._finished), 1])

    def num_ready(self) -> int:
        """Finished batches that come next, one after the other."""
        first = batch = self._next
        while self._finished[batch % len(self._finished), 0] == batch:
            batch += 1
        return batch - first

    def leave(self) -> None:
        """Nobody wants what is under way any more."""
        self._leaving[0] = True

    @property
    def is_leaving(self) -> bool:
        return bool(self._leaving[0])

    def write(self, batch: int, sample: int) -> None:
        """What this worker is at; a sample of -1 means nothing."""
        self._at[get_worker_info().id] = batch, sample  # type: ignore[union-attr]

    def at(self, worker: int) -> tuple[int, int]:
        """The batch and the sample that a worker is at, or was when it died."""
        batch, sample = self._at[worker].tolist()
        return batch, sample


def shared(shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """Zeros that processes forked later see and change. The memory has no name and needs no room in /dev/shm."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        memory = mmap.mmap(-1, num_bytes)
    except OSError as error:
        raise LoaderError(
            f"{num_bytes:,} bytes of memory for a batch cannot be had ({error}): use a smaller batch, fewer"
            " --data.batches-ahead or fewer --data.workers"
        ) from error
    return np.frombuffer(memory, dtype=dtype).reshape(shape)
