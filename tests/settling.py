"""Waiting for what a process holds to settle: on a busy machine threads end long after they were joined."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_S = 60


def settled(read: Callable[[], T], wanted: T) -> T:
    """What `read` gives, once it is `wanted`; at last whatever it is then."""
    until = time.monotonic() + _PATIENCE_S
    while (now := read()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return now


def at_rest(read: Callable[[], T]) -> T:
    """What `read` gives, once it gives the same for a while."""
    until, before = time.monotonic() + _PATIENCE_S, read()
    while time.monotonic() < until:
        time.sleep(0.3)
        now = read()
        if now == before:
            break
        before = now
    return before
