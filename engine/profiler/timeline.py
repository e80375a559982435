"""When each stage of a few steps began and how long it took, for a picture of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from .record import Span
from .step_clock import StepClock

WAITING = "data wait"  # beside stages: what the loop waits for is all of the loader's together
_STEPS = 4


class Timeline:
    """Notes the first few steps of a turn. Without a step's clock (on a GPU the host's times are not the device's) it
    notes nothing."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self.start()

    def start(self) -> None:
        """Begin anew: what was noted before is forgotten."""
        self._started = time.perf_counter()
        self._step = -1
        self._listens = False
        self.spans: list[Span] = []

    def waited(self, seconds: float) -> None:
        """A step begins now, after its batch was waited for so long."""
        if self._listens:
            self._step += 1
            self.note(WAITING, time.perf_counter() - seconds, seconds)

    def note(self, stage: str, started: float, seconds: float) -> None:
        """`started` by time.perf_counter()."""
        if 0 <= self._step < _STEPS:
            self.spans.append(Span(stage, self._rank, self._step, started - self._started, seconds))

    def listening(self, clock: StepClock) -> StepClock:
        """`clock`, whose spans are noted here as well until the next start."""
        self._listens = True
        return cast(StepClock, _Listening(clock, self))


class _Listening:
    def __init__(self, clock: StepClock, timeline: Timeline) -> None:
        self._clock = clock
        self._timeline = timeline

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        with self._clock.span(stage):
            yield
        self._timeline.note(stage, started, time.perf_counter() - started)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)
