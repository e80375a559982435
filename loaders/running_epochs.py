"""Epochs that are running: who may ask for their batches, and how they end, also in forks and at Python's exit."""

import atexit
import ctypes
import inspect
import os
import signal
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from .api import Batch
from .errors import FeedrateError, LoaderError

_MOST_S = 5.0  # that Python's exit waits for epochs: what a dead disk holds up ends never
_AGAIN_S = 0.1  # after which the next wait of an epoch that had so long is broken off as well

_running: "weakref.WeakSet[EpochIterator]" = weakref.WeakSet()  # of all loaders
_running_lock = threading.Lock()


@atexit.register
def _end_running() -> None:
    """Of epochs that nobody closed. Once Python is down their threads stand still, and from 3.13 on who closes one then
    waits for these for ever. By a timer, since 3.12 starts no thread here that could do the waiting."""
    with _running_lock:
        iterators = list(_running)
    if not iterators or threading.current_thread() is not threading.main_thread():
        return
    usual = signal.signal(signal.SIGALRM, _too_long)
    for iterator in iterators:
        with suppress(BaseException):  # nobody is there to hear of it
            signal.setitimer(signal.ITIMER_REAL, _MOST_S / len(iterators), _AGAIN_S)
            try:
                iterator.end("Python exits")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    with suppress(_TooLong):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)  # which one too late may have kept from
    signal.signal(signal.SIGALRM, usual or signal.SIG_DFL)


def _leave_to_the_parent() -> None:
    """In a process just forked: the epochs that were running are the parent's."""
    global _running_lock
    _running_lock = threading.Lock()  # a thread that is not here may have held it
    for iterator in list(_running):
        iterator.leave_to_the_parent()


os.register_at_fork(after_in_child=_leave_to_the_parent)


class _TooLong(BaseException):
    pass


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise _TooLong


class EpochIterator(Iterator[Batch]):
    """The batches of one epoch. An epoch that did not end by itself raises when asked for more, never just stops."""

    def __init__(self, batches: Generator[Batch], max_bad: int, place: Callable[[int], str]) -> None:
        self._batches = batches
        self._max_bad = max_bad
        self._place = place
        self._num_batches = 0
        self._num_bad = 0
        self._exhausted = False
        self._error: Exception | None = None
        # who asks for a batch, or ends the epoch; re-entrant, since a signal's handler may end what its thread asks
        self._asking = threading.RLock()
        with _running_lock:
            _running.add(self)

    def __next__(self) -> Batch:
        if not self._asking.acquire(blocking=False):
            raise self._error or FeedrateError(
                "two threads ask one epoch for batches, and each is valid only until the next is asked for: let one ask"
            )
        try:
            return self._next()
        finally:
            self._asking.release()

    def _next(self) -> Batch:
        if self._error:
            raise self._error
        try:
            batch = self._within_budget(next(self._batches))
        except StopIteration:
            self._exhausted = True
            raise
        except Exception as error:
            if not isinstance(error, FeedrateError):  # those say themselves what they are about; a bug does not
                with suppress(Exception):  # the plan itself may be what fails
                    error.add_note(self._place(self._num_batches))
            self._error = error
            raise
        except BaseException:  # Ctrl-C
            self.end("it was interrupted")
            raise
        self._num_batches += 1
        if self._error:  # it was ended meanwhile
            self._batches.close()
            raise self._error
        return batch

    def _within_budget(self, batch: Batch) -> Batch:
        self._num_bad += len(batch.substitutions)
        if self._num_bad > self._max_bad:
            self._batches.close()
            raise LoaderError(
                f"{self._num_bad} samples of this epoch could not be delivered, more than the {self._max_bad} that were"
                f" allowed; the last: {batch.substitutions[-1].reason}"
            )
        return batch

    def end(self, reason: str) -> None:
        """Give up what the epoch holds. Idempotent."""
        if not self._exhausted and not self._error:
            self._error = FeedrateError(f"this epoch gives no more batches, because {reason}: ask for it again")
        with self._asking:  # waits for the batch that another thread is about to get
            # where it is this very thread that asks for one, it closes them when it has it
            if inspect.getgeneratorstate(self._batches) != inspect.GEN_RUNNING:
                self._batches.close()

    def leave_to_the_parent(self) -> None:
        """In a forked process: the threads and processes that make the batches, and the locks they hold, are the
        parent's. Who ended them here would wait for ever, or end them there."""
        self._asking = threading.RLock()
        if inspect.getgeneratorstate(self._batches) in (inspect.GEN_CREATED, inspect.GEN_CLOSED):
            return
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._batches))  # so not even Python's exit closes them
        self._batches = _none()
        self.end("it belongs to the process that this one was forked from")

    def close(self) -> None:
        self.end("it was closed")


def _none() -> Generator[Batch]:
    yield from ()
