"""Where the wall time of a run goes: noted while it trains, and shared out over stages."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from loaders.stage_times import StageTimes

from .meter import Meter, lost_by_waiting_s
from .record import COMPUTE_STAGES, LOADER_STAGES
from .step_clock import StepClock
from .unseen_work import unseen

Around = Literal["warm-up", "evaluation", "checkpoint"]
AROUND: tuple[Around, ...] = ("warm-up", "evaluation", "checkpoint")
UNDIVIDED = "data-wait"
# of what all wall time consists; waiting for data is shared out over the loader's stages, or undivided where these
# cannot have taken it
PARTS = (*LOADER_STAGES, UNDIVIDED, *COMPUTE_STAGES, *AROUND, "other")


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of one rank, between two moments of its run.

    wall_s         all of them
    train_s        those in the loop over batches, without checkpoints
    wait_s         of these, without a batch;  first_batch_s  of these, for the first of an epoch
    loader_s       what the loader's stages took meanwhile, as `StageTimes.elapsed_s`; only stages that were seen
    step_s         what the step's stages took, by its clock; only those that were seen
    around_s       of AROUND
    """

    wall_s: float
    train_s: float
    wait_s: float
    first_batch_s: float
    loader_s: dict[str, float]
    step_s: dict[str, float]
    around_s: dict[str, float]

    def since(self, earlier: "TimeSpent") -> "TimeSpent":
        """What came after `earlier`, a reading of the same book."""
        return TimeSpent(
            self.wall_s - earlier.wall_s,
            self.train_s - earlier.train_s,
            self.wait_s - earlier.wait_s,
            self.first_batch_s - earlier.first_batch_s,
            _less(self.loader_s, earlier.loader_s),
            _less(self.step_s, earlier.step_s),
            _less(self.around_s, earlier.around_s),
        )

    @property
    def lost_by_waiting_s(self) -> float:
        """What waiting for batches cost."""
        return lost_by_waiting_s(self.train_s, self.wait_s, sum(self.step_s.values()))

    @property
    def own_s(self) -> float:
        """What this rank needs without the others: all but backward, in which ranks wait for each other."""
        keeping_up_s = max(0.0, self.lost_by_waiting_s - self.first_batch_s)
        return keeping_up_s + sum(taken for stage, taken in self.step_s.items() if stage != "backward")

    def shares(self) -> dict[str, float | None]:
        """Of each of PARTS, in order; together 1. None is what was not seen, or does not stand for itself.

        What waiting cost is shared out over the loader's stages as these took time, but for what they cannot have
        taken; exchanging gradients is a part of backward.
        """
        waited_s, loader_s = self.lost_by_waiting_s, sum(self.loader_s.values())
        parts = {**self.step_s, **self.around_s}
        unseen_s = unseen(waited_s, loader_s, self.first_batch_s) if loader_s > 0 else waited_s
        if loader_s > 0:
            parts |= {stage: (waited_s - unseen_s) * taken / loader_s for stage, taken in self.loader_s.items()}
        if unseen_s or not loader_s:
            parts[UNDIVIDED] = unseen_s
        parts["other"] = max(0.0, self.wall_s - sum(parts.values()))
        # more than the wall time only where a GPU works on steps while the host is at something else
        total_s = sum(parts.values())
        return {part: parts[part] / total_s if total_s > 0 and part in parts else None for part in PARTS}


class TimeBook:
    """Keeps account of one rank's time from its making, or `begin`, on.

    clock        of the step, asked for each time
    stage_times  of the training loader; None where nobody notes them
    of_ranks_s   what every rank needed by itself, as far as that was noted
    """

    def __init__(self, clock: Callable[[], StepClock], stage_times: StageTimes | None) -> None:
        self._clock = clock
        self._stage_times = stage_times
        self.begin()

    def begin(self) -> None:
        """Start anew."""
        self._started = time.perf_counter()
        self._train_s = self._wait_s = self._first_batch_s = 0.0
        self._loader_s: dict[str, float] = {}
        self._around_s: dict[str, float] = dict.fromkeys(AROUND, 0.0)
        self._step_before_s = self._step_s()
        self._last_lap: TimeSpent | None = None
        self.of_ranks_s: list[float] = []

    @contextmanager
    def around(self, part: Around) -> Iterator[None]:
        """Note the block's time as such; blocks do not lie in each other."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._around_s[part] += time.perf_counter() - started

    @contextmanager
    def training(self, meter: Meter) -> Iterator[None]:
        """Note the block's time as the loop over batches, which `meter` sees."""
        started, around_s, loader_s = time.perf_counter(), sum(self._around_s.values()), self.loader_s()
        try:
            yield
        finally:
            around_s = sum(self._around_s.values()) - around_s
            self._train_s += time.perf_counter() - started - around_s
            reading = meter.read()
            self._wait_s += reading.wait_s
            self._first_batch_s += reading.first_batch_s
            for stage, taken in _less(self.loader_s(), loader_s).items():
                self._loader_s[stage] = self._loader_s.get(stage, 0.0) + taken

    def loader_s(self) -> dict[str, float]:
        """What the training loader's stages took so far, whoever used it; empty where it shows none."""
        return {} if self._stage_times is None else self._stage_times.elapsed_s()

    def read(self) -> TimeSpent:
        """Everything so far, outside of a block."""
        return TimeSpent(
            time.perf_counter() - self._started,
            self._train_s,
            self._wait_s,
            self._first_batch_s,
            dict(self._loader_s),
            _less(self._step_s(), self._step_before_s),
            dict(self._around_s),
        )

    def lap(self) -> TimeSpent:
        """What came since the last lap."""
        now = self.read()
        lap = now if self._last_lap is None else now.since(self._last_lap)
        self._last_lap = now
        return lap

    def note_ranks(self, own_s: list[float]) -> None:
        """Add to `of_ranks_s` what every rank needed by itself (`TimeSpent.own_s`), in order of rank."""
        so_far_s = self.of_ranks_s or [0.0] * len(own_s)
        self.of_ranks_s = [sum(pair) for pair in zip(so_far_s, own_s, strict=True)]

    def _step_s(self) -> dict[str, float]:
        return {stage: span.wall_s for stage, span in self._clock().read().items()}


def _less(now: dict[str, float], earlier: dict[str, float]) -> dict[str, float]:
    return {stage: taken - earlier.get(stage, 0.0) for stage, taken in now.items()}
