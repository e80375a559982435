"""What can be seen of the training loop while a turn of it is measured."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from loaders.api import Batch, num_ready
from loaders.stage_times import StageReading

from ..step import TrainStep
from .family import Family, Used
from .feeds import RealFeed
from .measure import Watch
from .meter import lost_by_waiting_s
from .step_clock import StageSpan, StepClock, step_clock
from .timeline import Timeline


@dataclass(frozen=True)
class WatchedTurn:
    """One turn of the loop on this rank.

    copied_bytes  of pixels, from host to device; None where nobody can tell
    first_batches_s  how long the first batch of each epoch took
    waits_s   how long the loop stood still for each batch;  ready  how many batches were ready at each ask
    loader    what the loader's stages took;  step  what the step's did, quantiles of the loop's steps alone
    used      processors, memory and storage
    peak_bytes  the most memory of a GPU that was allocated at once
    seen_s    what each of them took of the time of all who work at once; None where nobody noted it
    """

    seconds: float
    num_images: int
    copied_bytes: int | None
    first_batches_s: tuple[float, ...]
    waits_s: tuple[float, ...]
    ready: tuple[int | None, ...]
    loader: dict[str, StageReading]
    step: dict[str, StageSpan]
    used: Used
    peak_bytes: int | None = None
    seen_s: dict[str, float] | None = None

    @property
    def lost_s(self) -> float:
        """What waiting for batches cost. Where a GPU worked on steps meanwhile, nothing was lost by it."""
        return lost_by_waiting_s(self.seconds, sum(self.waits_s), sum(span.wall_s for span in self.step.values()))

    @property
    def wait_share(self) -> float:
        """The same, of the turn's time."""
        return self.lost_s / self.seconds


class _AlsoTimed:
    """A step's clock whose spans a second one times as well, with the delays that the first may put into them."""

    def __init__(self, clock: StepClock, also_by: StepClock) -> None:
        self._clock = clock
        self._also_by = also_by

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        with self._also_by.span(stage), self._clock.span(stage):
            yield

    def read(self) -> dict[str, StageSpan]:
        return self._clock.read()

    def total_s(self) -> float:
        return self._clock.total_s()


class LoopWatch(Watch):
    """Notes a `WatchedTurn` of every turn it is given to."""

    def __init__(self, feed: RealFeed, step: TrainStep, family: Family, rank: int) -> None:
        self._feed = feed
        self._step = step
        self._family = family
        self._device = step.normalize.device
        self.timeline = Timeline(rank)
        self.turns: list[WatchedTurn] = []

    def begin(self) -> None:
        self._loader_before = self._feed.stage_times.read()
        self._seen_before_s = self._feed.stage_times.elapsed_s()
        if not self.turns:
            # the step's own times every experiment, and its quantiles are of all of them together
            self._loops_clock = step_clock(self._device.type)
        self._clock = self._step.clock
        self._step_before = self._loops_clock.read()
        self._waits_s: list[float] = []
        self._ready: list[int | None] = []
        self._num_images = self._num_bytes = 0
        self._family.begin()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self.timeline.start()
        clock: StepClock = _AlsoTimed(self._clock, self._loops_clock)
        self._step.clock = self.timeline.listening(clock) if self._device.type == "cpu" else clock

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            self._ready.append(num_ready(self._feed.loader))
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                self._ready.pop()
                return
            self._waits_s.append(time.perf_counter() - asked)
            self.timeline.waited(self._waits_s[-1])
            self._num_images += batch.num_valid
            self._num_bytes += batch.images.nbytes
            yield batch

    def end(self, seconds: float) -> None:
        self._step.clock = self._clock
        readings, step = self._feed.stage_times.read(), self._loops_clock.read()
        seen_s, before_s = self._feed.stage_times.elapsed_s(), self._seen_before_s
        loader = {name: reading.since(self._loader_before.get(name)) for name, reading in readings.items()}
        self.turns.append(
            WatchedTurn(
                seconds,
                self._num_images,
                self._copied_bytes(loader),
                tuple(self._feed.first_batch_s),
                tuple(self._waits_s),
                tuple(self._ready),
                loader,
                {name: span.since(self._step_before.get(name)) for name, span in step.items()},
                self._family.end(),
                torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None,
                {name: taken - before_s.get(name, 0.0) for name, taken in seen_s.items()},
            )
        )

    def _copied_bytes(self, loader: dict[str, StageReading]) -> int | None:
        """A loader that shows copying copies the batches it hands out, unless they are resized after it."""
        copies = "copy" in loader and loader["copy"].count > 0
        return self._num_bytes if copies and not self._feed.resizes_on_device else None
