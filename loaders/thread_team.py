"""Threads that work on a few batches at once, in order, some rows at a time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from .plan import PlanRows
from .stage_writer import UNTIMED, StageWriter


class Part(NamedTuple):
    """Rows [start, stop) of job number `job`."""

    job: int
    start: int
    stop: int


Worker = Callable[[PlanRows, Part], None]


class _Job:
    """A batch under way; guarded by the team's lock."""

    def __init__(self, rows: PlanRows) -> None:
        self.rows = rows
        self.num_rows_left = len(rows)
        self.failures: list[tuple[int, BaseException]] = []
        self.finished_ns = 0  # when it was, by time.perf_counter_ns


class ThreadTeam:
    """`num_threads` threads that make jobs 0 … num_jobs - 1, at most `depth` of them not yet given back.

    rows_of  the plan's rows of a job; called by one thread at a time, in order
    recruit  called once by each thread, with its number from 1 on: its worker, which then is called with parts of at
             most `chunk` rows

    A context manager: threads run inside the block and are gone after it, however it is left.
    """

    def __init__(
        self,
        rows_of: Callable[[int], PlanRows],
        recruit: Callable[[int], Worker],
        num_jobs: int,
        depth: int,
        chunk: int,
        num_threads: int,
    ) -> None:
        self._rows_of = rows_of
        self._recruit = recruit
        self._num_jobs = num_jobs
        self._depth = depth
        self._chunk = chunk
        # re-entrant, since the collector may end a forgotten epoch anywhere: in a thread of its own that holds the lock
        self._lock = threading.RLock()
        self._work_to_do = threading.Condition(self._lock)
        self._job_finished = threading.Condition(self._lock)
        self._jobs: dict[int, _Job] = {}
        self._parts: deque[Part] = deque()
        self._num_begun = 0
        self._num_taken = 0
        self._num_given_back = 0
        self._stopping = False
        self._broken: BaseException | None = None
        # daemons: Python, which waits for all others, ends forgotten epochs only after that (see `running_epochs`)
        self._threads = [
            threading.Thread(target=self._run, args=(n + 1,), name=f"feedrate-{n}", daemon=True)
            for n in range(num_threads)
        ]

    def __enter__(self) -> "ThreadTeam":
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def finished(self, job: int, times: StageWriter = UNTIMED) -> PlanRows:
        """Wait for a job and return its rows. If any failed, raise the error of the first of them in the batch.

        times  notes as stage "hand-off" what it takes from when the job is both finished and asked for
        """
        with times.stage("hand-off", 0) as span:
            with self._lock:
                while self._broken is None and (job not in self._jobs or self._jobs[job].num_rows_left):
                    self._job_finished.wait()
                if self._broken is not None:
                    raise self._broken
                done = self._jobs.pop(job)
                self._num_taken = job + 1
            span.not_before(done.finished_ns)
            if done.failures:
                raise min(done.failures, key=lambda failure: failure[0])[1]
            span.images = done.rows.num_valid
            return done.rows

    def num_ready(self) -> int:
        """Jobs for which `finished`, called one after the other, would not wait. Any thread may ask."""
        with self._lock:
            job = self._num_taken
            while job in self._jobs and not self._jobs[job].num_rows_left:
                job += 1
            return job - self._num_taken

    def give_back(self, job: int) -> None:
        """The job's memory may be used for another."""
        with self._lock:
            self._num_given_back = job + 1
            self._work_to_do.notify_all()

    def _run(self, number: int) -> None:
        try:
            worker = self._recruit(number)
            while (task := self._take()) is not None:
                job, part = task
                failure = None
                try:
                    worker(job.rows, part)
                except Exception as error:
                    failure = error
                self._put_down(job, part, failure)
        except BaseException as error:  # the consumer must hear of it, or it would wait for ever
            with self._lock:
                self._broken = error
                self._job_finished.notify_all()

    def _take(self) -> tuple[_Job, Part] | None:
        """The next part to work on, waiting until there is one; None when there will be no more."""
        with self._lock:
            while not self._stopping:
                if self._parts:
                    part = self._parts.popleft()
                    return self._jobs[part.job], part
                if self._num_begun == self._num_jobs:
                    return None
                if self._num_begun < self._num_given_back + self._depth:
                    self._begin_next_job()
                else:
                    self._work_to_do.wait()
        return None

    def _begin_next_job(self) -> None:
        number = self._num_begun
        job = _Job(self._rows_of(number))
        self._jobs[number] = job
        self._num_begun += 1
        starts = range(0, len(job.rows), self._chunk)
        self._parts.extend(Part(number, start, min(start + self._chunk, len(job.rows))) for start in starts)

    def _put_down(self, job: _Job, part: Part, failure: Exception | None) -> None:
        with self._lock:
            if failure is not None:
                job.failures.append((part.start, failure))
            job.num_rows_left -= part.stop - part.start
            if not job.num_rows_left:
                job.finished_ns = time.perf_counter_ns()
                self._job_finished.notify_all()

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._work_to_do.notify_all()
        if threading.current_thread() in self._threads:
            return  # it cannot wait for itself; all end with what they are at
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
