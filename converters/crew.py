"""A crew of worker processes: each does its part, tells how large the outcome is, and writes it where it is told.

So the bytes never travel through the first process, which only says in turn who writes where: the outcome does not
depend on the number of workers, and one process can keep many busy. Nothing waits for ever: a worker that dies or
stops is an error that names what it was at.
"""

import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from loaders.errors import FeedrateError
from loaders.held_signals import held_signals

from .crew_worker import PRELOADED, own_environment, serve

IN_FLIGHT = 3  # tasks a worker: one encoded and waiting for its turn, one being worked on, one being read ahead
STUCK_S = 300.0  # at one item: no image takes that long, and a network file system that does will not come back
_LOOK_INTERVAL_S = 1.0
_LOOKS_MISSED = 5  # in a row: then this process was held up too (Ctrl-Z, a machine that slept), and nobody looked


class Work(Protocol):
    """What a crew does, in two steps. It is pickled once to each worker.

    Any exception of it ends the pass; FeedrateError and OSError are told to the user by the caller.
    """

    def read_ahead(self, task: Any) -> None:
        """Hint that `task` comes soon; called from another thread than the rest. Must not raise."""
        ...

    def prepare(self, task: Any, at: Callable[[int], None]) -> tuple[Any, Any]:
        """Do the work; call `at(i)` before the task's item i. Returns (report for the first process, what to keep)."""
        ...

    def write(self, kept: Any, place: Any) -> None:
        """Put what was kept where the first process says."""
        ...


@dataclass
class _Given:
    """A task that a worker has, and how far it is."""

    worker: "_Worker"
    task: Any
    report: Any = None
    prepared: bool = False
    written: bool = False


def run_in_order(
    work: Work,
    tasks: Sequence[Any],
    num_workers: int,
    place: Callable[[Any, Any], Any],
    describe: Callable[[int, int], str],
    stuck_s: float | None = None,
) -> Generator[int, None, None]:
    """Work through the tasks; yields the number of each once it and all before it are written.

    place(task, report) -> place   called in the order of the tasks, in this process
    describe(number, item)         names an item of task `number`, for the sentence about a worker that died there
    num_workers                    0: all is done in this process
    stuck_s                        how long a worker may be at one item (STUCK_S)

    At most IN_FLIGHT tasks a worker are under way or wait for their turn, so memory stays bounded. Closing the
    iterator ends all workers at once. Raises FeedrateError for a dead or stuck worker, and what the work raised.
    """
    if num_workers == 0:
        for number, task in enumerate(tasks):
            report, kept = work.prepare(task, lambda item: None)
            work.write(kept, place(task, report))
            yield number
        return
    crew = _Crew(describe, STUCK_S if stuck_s is None else stuck_s)
    try:
        for _ in range(min(num_workers, len(tasks))):
            crew.workers.append(_Worker(work))
        yield from _dispatch(crew, tasks, place)
    finally:
        crew.end()


def _dispatch(crew: "_Crew", tasks: Sequence[Any], place: Callable[[Any, Any], Any]) -> Generator[int, None, None]:
    """Hand out tasks, give each its place in turn, and tell which are written."""
    under_way: dict[int, _Given] = {}
    num_given = num_placed = num_yielded = 0
    while num_yielded < len(tasks):
        for worker in crew.workers:  # each has the same number of tasks, so that none runs dry
            most = min(len(tasks), num_yielded + IN_FLIGHT * len(crew.workers))
            while len(worker.tasks) < IN_FLIGHT and num_given < most:
                given = under_way[num_given] = _Given(worker, tasks[num_given])
                crew.send(worker, ("prepare", num_given, given.task))
                worker.tasks.append(num_given)
                num_given += 1
        for worker, (what, number, result) in crew.receive():
            given = under_way[number]
            if what == "prepared":
                given.report, given.prepared = result, True
            else:
                given.written = True
                worker.tasks.remove(number)
        while num_placed in under_way and under_way[num_placed].prepared:
            given = under_way[num_placed]
            crew.send(given.worker, ("write", num_placed, place(given.task, given.report)))
            num_placed += 1
        while num_yielded in under_way and under_way[num_yielded].written:
            del under_way[num_yielded]
            yield num_yielded
            num_yielded += 1


@dataclass
class _Crew:
    """The workers, and a thread that speaks to them, since a pipe that is full would hold this process up."""

    describe: Callable[[int, int], str]
    stuck_s: float
    workers: list["_Worker"] = field(default_factory=list)
    _outbox: "queue.SimpleQueue[tuple[Connection, Any] | None]" = field(default_factory=queue.SimpleQueue)
    _sender: threading.Thread | None = None
    _looked_s: float = 0.0

    def send(self, worker: "_Worker", message: Any) -> None:
        if self._sender is None:
            with held_signals():  # a thread that was not started cannot be joined
                self._sender = threading.Thread(target=self._send_all, name="feedrate-crew", daemon=True)
                self._sender.start()
        self._outbox.put((worker.connection, message))

    def _send_all(self) -> None:
        while (item := self._outbox.get()) is not None:
            with suppress(OSError):  # it has died: `receive` will say so
                item[0].send(item[1])

    def receive(self) -> list[tuple["_Worker", Any]]:
        """Wait for at least one message. Raises what a worker raised, or FeedrateError when one died or is stuck."""
        while True:
            ready = wait([worker.connection for worker in self.workers], _LOOK_INTERVAL_S)
            before_s, self._looked_s = self._looked_s, time.monotonic()
            if self._looked_s - before_s > _LOOKS_MISSED * _LOOK_INTERVAL_S:
                for worker in self.workers:
                    worker.restart_clock()
            for worker in self.workers:
                if worker.connection not in ready and worker.seconds_at_one_item() > self.stuck_s:
                    raise FeedrateError(
                        f"a worker process is stuck at {self._doing(worker)} for {self.stuck_s:.0f} s:"
                        " look at that image and the disk it is on, then give the same command again"
                    )
            if ready:
                return [(worker, self._take(worker)) for worker in self.workers if worker.connection in ready]

    def _take(self, worker: "_Worker") -> Any:
        try:
            what, number, result = worker.connection.recv()
        except (EOFError, ConnectionResetError) as end:
            cause = worker.cause_of_death()
            raise FeedrateError(
                f"a worker process died ({cause}) at {self._doing(worker)}: try fewer --workers, or look at that image;"
                " the same command goes on where this one stopped"
            ) from end
        if what == "failed":
            raise result
        return what, number, result

    def _doing(self, worker: "_Worker") -> str:
        number, item, _ = worker.state
        return self.describe(number, item) if number >= 0 else "its start"

    def end(self) -> None:
        """End all workers, by force: whatever they have not reported is not wanted."""
        for worker in self.workers:
            worker.kill()
        if self._sender is not None:
            self._outbox.put(None)
            self._sender.join()
        for worker in self.workers:
            worker.connection.close()


class _Worker:
    """One process and this side's end of its pipe; no other process holds the far end, so a death ends the pipe."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("forkserver")  # safe whatever threads this process has
        context.set_forkserver_preload(PRELOADED)
        self.connection, far_end = context.Pipe()
        self.tasks: list[int] = []
        self.state = context.RawArray("q", [-1, -1, 0])  # task, item in it, and a count of all items begun
        self._seen, self._since_s = -1, 0.0
        self._process = context.Process(target=serve, args=(far_end, self.state, work, own_environment()), daemon=True)
        with held_signals():
            # Ctrl-C reaches the whole foreground group; born with it blocked, a worker leaves it to this process. The
            # resource tracker must run by then, since starting it lifts the block.
            resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()

    def seconds_at_one_item(self) -> float:
        """How long it has been busy with the same item, as far as anyone looked; 0 while it has nothing to do."""
        if self.state[2] != self._seen or not self.tasks or self.state[0] < 0:
            self._seen, self._since_s = self.state[2], time.monotonic()
        return time.monotonic() - self._since_s

    def restart_clock(self) -> None:
        """Count the time at its item from now on."""
        self._since_s = time.monotonic()

    def cause_of_death(self) -> str:
        """In words, once its pipe has ended."""
        self._process.join(timeout=60)  # whoever forked it reports its end, on a busy machine late
        exit_code = self._process.exitcode
        if exit_code is None or exit_code >= 0:
            return f"exit status {exit_code}"
        name = signal.Signals(-exit_code).name
        return f"{name}, often for lack of memory" if name == "SIGKILL" else name

    def kill(self) -> None:
        """End the process at once; one that was stopped too."""
        self._process.kill()
        self._process.join()
