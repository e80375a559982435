"""A batch on its way through FFCV's pipeline, of which threads take parts."""

import threading
import time
from concurrent.futures import Future, wait

import numpy as np
from numpy.typing import NDArray

from .errors import LoaderError
from .ffcv_compiled import NUM_COLUMNS
from .plan import PlanRows


class PlannedBatch:
    """What FFCV hands to our operation as `batch_indices`: the plan's rows, and the same for compiled code.

    table  int64 [rows, NUM_COLUMNS], see ffcv_compiled

    Threads take its rows in parts that shrink, so that all end at about the same time.
    """

    def __init__(self, rows: PlanRows, table: NDArray[np.int64]) -> None:
        assert table.shape == (len(rows), NUM_COLUMNS)
        self.rows = rows
        self.table = table
        self.work: list[Future[None]] = []
        self.failures: list[tuple[int, LoaderError]] = []
        self.finished_ns = 0  # when its last row was made, by time.perf_counter_ns; 0: not yet
        self._num_made = 0
        self._next = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, num_threads: int) -> range:
        """The next rows to make; empty when there are none."""
        with self._lock:
            start = self._next
            self._next += -(-(len(self) - start) // (4 * num_threads))
            return range(start, self._next)

    def made(self, num_rows: int) -> None:
        """So many more rows are."""
        with self._lock:
            self._num_made += num_rows
            if self._num_made == len(self):
                self.finished_ns = time.perf_counter_ns()

    def finish(self) -> PlanRows:
        """Wait until the batch is made. Of several rows that failed, raises the error of the first."""
        wait(self.work)
        for part in self.work:
            part.result()
        if self.failures:
            raise min(self.failures, key=lambda failure: failure[0])[1]
        return self.rows
