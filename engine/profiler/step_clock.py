"""How long each stage of a training step takes, and what else is timed where the device works."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

_KEPT = 512  # durations of a stage, for its quantiles


@dataclass(frozen=True)
class StageSpan:
    """What one stage of the step took so far. `quantiles_s`: 50, 90 and 99 % of the last some hundred spans."""

    count: int
    wall_s: float
    quantiles_s: tuple[float, float, float]

    def since(self, earlier: "StageSpan | None") -> "StageSpan":
        """What came after `earlier`, a reading of the same stage; None: all did. The quantiles stay the newest."""
        if earlier is None:
            return self
        return StageSpan(self.count - earlier.count, self.wall_s - earlier.wall_s, self.quantiles_s)


class StepClock(Protocol):
    """Times stages of a step; neither timing nor reading makes the host wait for the device."""

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time what the step does within the block."""
        ...

    def read(self) -> dict[str, StageSpan]:
        """Of every stage seen so far."""
        ...

    def total_s(self) -> float:
        """Wall time of all stages so far; as cheap as a look at a clock."""
        ...


class _Spans:
    """What was timed so far."""

    def __init__(self) -> None:
        self._count: dict[str, int] = defaultdict(int)
        self._wall_s: dict[str, float] = defaultdict(float)
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def add(self, stage: str, seconds: float) -> None:
        self._count[stage] += 1
        self._wall_s[stage] += seconds
        self._recent[stage].append(seconds)

    def read(self) -> dict[str, StageSpan]:
        return {
            stage: StageSpan(count, self._wall_s[stage], self._quantiles(stage)) for stage, count in self._count.items()
        }

    def total_s(self) -> float:
        return sum(self._wall_s.values())

    def _quantiles(self, stage: str) -> tuple[float, float, float]:
        p50, p90, p99 = np.quantile(self._recent[stage], (0.5, 0.9, 0.99))
        return float(p50), float(p90), float(p99)


class HostClock:
    """Of a CPU, where work is done when the call returns. On other devices it would time the asking alone."""

    def __init__(self) -> None:
        self._spans = _Spans()

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spans.add(stage, time.perf_counter() - started)

    def read(self) -> dict[str, StageSpan]:
        return self._spans.read()

    def total_s(self) -> float:
        return self._spans.total_s()


class CudaClock:
    """Of a GPU, by pairs of events in the current stream.

    A pair is looked at once the device has passed it, so what is under way just now is not in a reading yet. A span
    holds what the device waits within it for the host to ask for more work, too.
    """

    def __init__(self) -> None:
        self._spans = _Spans()
        self._under_way: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._free: list[torch.cuda.Event] = []

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        start, end = self._event(), self._event()
        start.record()
        yield
        end.record()
        self._under_way.append((stage, start, end))
        self._collect()

    def read(self) -> dict[str, StageSpan]:
        self._collect()
        return self._spans.read()

    def total_s(self) -> float:
        self._collect()
        return self._spans.total_s()

    def _event(self) -> torch.cuda.Event:
        return self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def _collect(self) -> None:
        """Take the events that the device has passed; asking does not wait for it."""
        while self._under_way and self._under_way[0][2].query():  # type: ignore[no-untyped-call]
            stage, start, end = self._under_way.popleft()
            self._spans.add(stage, start.elapsed_time(end) / 1e3)
            self._free += (start, end)


class NoClock:
    """Times nothing: for devices that cannot be asked without waiting, and to see what timing costs."""

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        yield

    def read(self) -> dict[str, StageSpan]:
        return {}

    def total_s(self) -> float:
        return 0.0


def step_clock(device_type: str) -> StepClock:
    """The clock for a device of this type."""
    clocks: dict[str, type[HostClock] | type[CudaClock]] = {"cpu": HostClock, "cuda": CudaClock}
    return clocks.get(device_type, NoClock)()
