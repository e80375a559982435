"""Three numbers, measured in turns: the step alone, the loader alone, and both together.

The step alone runs on a synthetic batch of the same shape, so nothing is read or decoded; the loader alone is drained
as fast as it delivers; together is the training loop. The three take turns for several rounds, so that a machine that
grows slower meanwhile slows all of them.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import torch

from loaders.api import Batch, Loader

from ..step import TrainStep
from .meter import Meter

_WARM_UP_BATCHES = 2


@dataclass(frozen=True)
class Rate:
    """Images per second, one number a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        return min(self.rounds)

    @property
    def high(self) -> float:
        return max(self.rounds)

    @property
    def spread(self) -> float:
        """(highest - lowest) / median."""
        return (self.high - self.low) / self.median


@dataclass(frozen=True)
class Measurement:
    """The three rates of one configuration, and the share of time the loop waited for data when both ran."""

    step_alone: Rate
    loader_alone: Rate
    together: Rate
    data_wait_share: float


Tell = Callable[[str], None]


def measure(step: TrainStep, loader: Loader, synthetic: Loader, seconds: float, rounds: int, tell: Tell) -> Measurement:
    """Measure `rounds` times each, for about `seconds` a time and at least one batch, warm-up not counted.

    `synthetic` delivers batches of the loader's shape at no cost. The model is trained meanwhile: pass a throwaway one.
    """
    device = step.normalize.device
    step.module.train()

    numbers = itertools.cycle(range(step.windows.length_at(0)))

    def train_on(batch: Batch) -> None:
        # one window again and again, at the schedule's first rate, the smallest: the weights stay finite
        step(batch.images, batch.labels, batch.ids, next(numbers))

    rates: dict[str, list[float]] = {"step": [], "loader": [], "together": []}
    waits = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: the step alone")
        rates["step"].append(_rate(_endless(synthetic), train_on, device, seconds)[0])
        tell(f"round {number + 1} of {rounds}: the loader alone")
        rates["loader"].append(_rate(_endless(loader), None, device, seconds)[0])
        tell(f"round {number + 1} of {rounds}: both together")
        together, wait_share = _rate(_endless(loader), train_on, device, seconds)
        rates["together"].append(together)
        waits.append(wait_share)
    return Measurement(
        Rate(tuple(rates["step"])),
        Rate(tuple(rates["loader"])),
        Rate(tuple(rates["together"])),
        statistics.median(waits),
    )


def _rate(
    batches: Generator[Batch, None, None], work: Callable[[Batch], None] | None, device: torch.device, seconds: float
) -> tuple[float, float]:
    """(images per second, share of time waited for batches) of doing `work` on batches, once warm."""
    with closing(batches):
        warming = time.perf_counter()
        for batch in itertools.islice(batches, _WARM_UP_BATCHES):
            if work is not None:
                work(batch)
            if time.perf_counter() - warming > seconds:
                break  # steps this long need no second one to be warm
        _finish(device)
        meter = Meter()
        started = time.perf_counter()
        for batch in meter.timed(batches):
            if work is not None:
                work(batch)
            if time.perf_counter() - started >= seconds:
                break
        _finish(device)
        reading = meter.read()
    return reading.images_per_s, reading.data_wait_share


def _endless(loader: Loader) -> Generator[Batch, None, None]:
    """Epoch after epoch, as a long run would have them."""
    epoch = 0
    while True:
        with closing(loader.epoch(epoch)) as batches:
            yield from batches
        epoch += 1


def _finish(device: torch.device) -> None:
    """Wait for work given to a GPU, so that the clock reads when it was done and not when it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
