"""How long each stage of a training step takes."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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


class HostClock:
    """Of a CPU, where work is done when the call returns. On other devices it would time the asking alone."""

    def __init__(self) -> None:
        self._count: dict[str, int] = defaultdict(int)
        self._wall_s: dict[str, float] = defaultdict(float)
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        taken = time.perf_counter() - started
        self._count[stage] += 1
        self._wall_s[stage] += taken
        self._recent[stage].append(taken)

    def read(self) -> dict[str, StageSpan]:
        return {
            stage: StageSpan(count, self._wall_s[stage], self._quantiles(stage)) for stage, count in self._count.items()
        }

    def _quantiles(self, stage: str) -> tuple[float, float, float]:
        p50, p90, p99 = np.quantile(self._recent[stage], (0.5, 0.9, 0.99))
        return float(p50), float(p90), float(p99)


class NoClock:
    """Where stages cannot be told apart without waiting for the device."""

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        yield

    def read(self) -> dict[str, StageSpan]:
        return {}


def step_clock(device_type: str) -> StepClock:
    """The clock for a device of this type."""
    return HostClock() if device_type == "cpu" else NoClock()
