"""What can be seen of the training loop while a turn of it is measured."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from loaders.api import Batch, num_ready
from loaders.stage_times import StageReading

from ..step import TrainStep
from .family import Family, Used
from .feeds import RealFeed
from .measure import Watch
from .step_clock import StageSpan
from .timeline import Timeline


@dataclass(frozen=True)
class WatchedTurn:
    """One turn of the loop on this rank.

    waits_s   how long the loop stood still for each batch;  ready  how many batches were ready at each ask
    loader    what the loader's stages took;  step  what the step's did
    used      processors, memory and storage;  workers  of the loader
    """

    seconds: float
    num_images: int
    num_bytes: int
    waits_s: tuple[float, ...]
    ready: tuple[int | None, ...]
    loader: dict[str, StageReading]
    step: dict[str, StageSpan]
    used: Used

    @property
    def wait_share(self) -> float:
        return min(1.0, sum(self.waits_s) / self.seconds)


class LoopWatch(Watch):
    """Notes a `WatchedTurn` of every turn it is given to."""

    def __init__(self, feed: RealFeed, step: TrainStep, family: Family, rank: int) -> None:
        self._feed = feed
        self._step = step
        self._family = family
        self.timeline = Timeline(rank)
        self.turns: list[WatchedTurn] = []

    def begin(self) -> None:
        self._loader_before = self._feed.stage_times.read()
        self._clock = self._step.clock
        self._step_before = self._clock.read()
        self._waits_s: list[float] = []
        self._ready: list[int | None] = []
        self._num_images = self._num_bytes = 0
        self._family.begin()
        self.timeline.start()
        if self._step.normalize.device.type == "cpu":
            self._step.clock = self.timeline.listening(self._clock)

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
        loader, step = self._feed.stage_times.read(), self._clock.read()
        self.turns.append(
            WatchedTurn(
                seconds,
                self._num_images,
                self._num_bytes,
                tuple(self._waits_s),
                tuple(self._ready),
                {name: reading.since(self._loader_before.get(name)) for name, reading in loader.items()},
                {name: span.since(self._step_before.get(name)) for name, span in step.items()},
                self._family.end(),
            )
        )
