"""Signals that wait until something is done that must not be left half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def held_signals() -> Iterator[None]:
    """What this process does in Python at a signal that asks it to end, it does at the end of the block.

    For starting processes: interrupted in between, torch's DataLoader ends by an error of its own, and the server that
    forks processes for multiprocessing is left with half a request; both say so with a traceback. Blocking signals does
    not do it: any other thread takes them, and Python then calls the handler in the first one.
    """
    came: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():  # no other is interrupted, and none may set handlers
        found = {number: signal.getsignal(number) for number in _ENDING}
        before = {int(number): handler for number, handler in found.items() if callable(handler)}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:  # not sent again: who listens by set_wakeup_fd has heard it
            before[number](number, None)
