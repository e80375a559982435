"""A crew of worker processes: tasks in, results out in the order of the tasks, and no way to wait for ever."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import cv2

from loaders.errors import FeedrateError

_PRELOADED = ["numpy", "cv2", "simplejpeg", "PIL.Image"]  # imported once, in the process that forks the workers
_IN_FLIGHT = 2  # tasks a worker: one being worked on, one whose result waits for its turn


class Work(Protocol):
    """What a crew does. It is pickled once to each worker."""

    def __call__(self, task: Any, begin: Callable[[int], None]) -> Any:
        """Do one task; call `begin(item)` before each of its items. FeedrateError is told to the user."""
        ...

    def describe(self, item: int) -> str:
        """An item, for people."""
        ...


def run_in_order(work: Work, tasks: Sequence[Any], num_workers: int) -> Generator[Any, None, None]:
    """Yield `work(task)` for each task, in order, computed by `num_workers` processes (1: by this one).

    At most two tasks a worker are under way or wait for their turn, so memory stays bounded. A worker that dies, for
    lack of memory say, raises FeedrateError with the item it was at. Closing the iterator ends all workers.
    """
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        for task in tasks:
            yield work(task, lambda item: None)
        return
    crew: list[_Worker] = []
    try:
        crew.extend(_Worker(work) for _ in range(num_workers))
        yield from _dispatch(crew, tasks, work)
    finally:
        for worker in crew:
            worker.end()


def _dispatch(crew: list["_Worker"], tasks: Sequence[Any], work: Work) -> Generator[Any, None, None]:
    """Hand out tasks, collect results, yield them in order."""
    idle, results = list(crew), {}
    num_given = 0
    for turn in range(len(tasks)):
        while turn not in results:
            while idle and num_given < min(len(tasks), turn + _IN_FLIGHT * len(crew)):
                idle.pop().give(num_given, tasks[num_given])
                num_given += 1
            ready = wait([worker.connection for worker in crew if worker not in idle])
            for worker in crew:
                if worker.connection in ready:
                    number, result = worker.take(work)
                    results[number] = result
                    idle.append(worker)
        yield results.pop(turn)


class _Worker:
    """One process and this side's end of its pipe; no other process holds the far end, so a death ends the pipe."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("forkserver")  # safe whatever threads this process has
        context.set_forkserver_preload(_PRELOADED)
        self.connection, far_end = context.Pipe()
        self._item = context.RawValue("q", -1)
        self._process = context.Process(target=_serve, args=(far_end, self._item, work), daemon=True)
        # Ctrl-C reaches the whole foreground group; born with it blocked, a worker leaves it to this process. The
        # resource tracker must run by then, since starting it lifts the block.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()

    def give(self, number: int, task: Any) -> None:
        with suppress(BrokenPipeError):  # it has died: `take` will say so
            self.connection.send((number, task))

    def take(self, work: Work) -> tuple[int, Any]:
        """The number and the result of the task it had. Raises what the task raised, or that the worker died."""
        try:
            number, result, error = self.connection.recv()
        except (EOFError, ConnectionResetError) as end:
            self._process.join()
            item = self._item.value
            doing = work.describe(item) if item >= 0 else "it had hardly started"
            raise FeedrateError(
                f"a worker process died ({_cause(self._process.exitcode)}) at {doing}:"
                " try fewer --workers, or look at that image"
            ) from end
        if error is not None:
            raise error
        return number, result

    def end(self) -> None:
        """End the process, by force if it does not listen."""
        self._process.terminate()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


def _cause(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit status {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"{name}, often for lack of memory" if name == "SIGKILL" else name


def _serve(connection: Connection, item: Any, work: Work) -> None:
    """The life of a worker: until the pipe ends, which it also does when the first process is gone."""

    def begin(number: int) -> None:
        item.value = number

    cv2.setNumThreads(1)  # the crew is what runs in parallel
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            number, task = connection.recv()
            reply: tuple[int, Any, Exception | None]
            try:
                reply = (number, work(task, begin), None)
            except Exception as error:
                if not isinstance(error, FeedrateError):
                    error.add_note(traceback.format_exc())  # a bug: say where, since tracebacks cannot travel
                reply = (number, None, error)
            connection.send(reply)
