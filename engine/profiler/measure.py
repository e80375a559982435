"""Rates of several experiments, measured in turns, so that a machine that grows slower meanwhile slows all of them.

A turn is some warm-up batches, which no clock sees, and then a number of whole batches that all ranks agree on before:
ranks that exchange gradients must all do the same number of steps.
"""

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace

from loaders.api import Batch
from loaders.errors import FeedrateError

from ..dist import Ranks
from .record import Rate

_FIRST_COUNT = 2  # batches of the turn that finds out how long they take
_MOST_BATCHES = 100_000
_MOST_MINUTES, _MOST_ROUNDS = 7 * 24 * 60, 10_000
_LONGER = 1.25  # from so many times the wanted time on, that is said
_GROWTH = 10  # a turn takes at most so many times the batches of the one before, whatever that lets expect

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How long to measure: all rounds of everything in about `minutes`."""

    minutes: float = 2.0
    rounds: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= _MOST_MINUTES:
            raise FeedrateError(
                f"--minutes is {self.minutes:g}: it must be above 0, and {_MOST_MINUTES:,} at most, a week"
            )
        if not 1 <= self.rounds <= _MOST_ROUNDS:
            raise FeedrateError(f"--rounds is {self.rounds}: it must be 1 or more, and {_MOST_ROUNDS:,} at most")


class Watch:
    """Looks on while a turn is measured. This one sees nothing."""

    def begin(self) -> None:
        """The warm-up is over and the clock starts."""

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches."""
        return batches

    def end(self, seconds: float) -> None:
        """The clock stopped after so many seconds on this rank."""


class Counted(Watch):
    """Counts the batches of each turn."""

    def __init__(self) -> None:
        self.turns: list[int] = []

    def begin(self) -> None:
        self.turns.append(0)

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.turns[-1] += 1
            yield batch


@dataclass(frozen=True)
class Experiment:
    """Something that takes batches.

    batches   called with a number: a stream of at least so many of them, that ends what it opened when it is closed
    work      done with each; None: they are only taken
    warm_up   batches that no clock sees
    most      batches a turn may take, warm-up included
    every     a turn's batches are a multiple of this, one at least, as far as `most` allows: workers that make a batch
              each hand them out in bursts, and a part of one would seem to come at once, or late
    least     batches a turn takes, however long that is
    around    what a turn runs in
    """

    name: str
    text: str
    batches: Callable[[int], Generator[Batch]]
    work: Callable[[Batch], None] | None
    warm_up: int
    most: int = _MOST_BATCHES
    every: int = 1
    least: int = 1
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    watch: Watch = field(default_factory=Watch)


def measure(
    experiments: Sequence[Experiment], ranks: Ranks, seconds: float, rounds: int, tell: Tell
) -> dict[str, Rate]:
    """The rate of every experiment, `rounds` numbers each, in about `seconds` altogether.

    A first turn of each is not counted: it meets what only happens once, and tells how many batches fit into the time.
    All take at least a batch a turn, or `every` or `least`, however long that takes: where it is more than was wanted,
    `tell` hears that before the rounds.
    """
    started = time.perf_counter()
    turns = {}
    for experiment in experiments:
        tell(f"once, uncounted: {experiment.text}")
        first = _turn(experiment, _FIRST_COUNT, min(1, experiment.warm_up), ranks, Watch())
        # with its start, since batches that were made meanwhile would seem to take no time
        turns[experiment.name] = replace(first, s_per_batch=first.s_with_start)
    (spent,) = ranks.largest([time.perf_counter() - started])
    share_s = max(0.0, seconds - spent) / (rounds * len(experiments))
    least_s = spent + rounds * sum(max(share_s, _least_s(each, turns[each.name])) for each in experiments)
    if least_s > _LONGER * seconds:
        tell(
            f"this takes about {least_s / 60:.2g} minutes in place of {seconds / 60:.2g}: there are {rounds} rounds of"
            f" {len(experiments)} turns, each of a whole batch at least; fewer --rounds take less"
        )
    rates: dict[str, list[float]] = {experiment.name: [] for experiment in experiments}
    for number in range(rounds):
        for experiment in experiments:
            tell(f"round {number + 1} of {rounds}: {experiment.text}")
            before = turns[experiment.name]
            fitting = math.ceil(share_s / before.s_per_batch)
            warm_up = min(experiment.warm_up, max(experiment.least, fitting))
            count = max(experiment.least, min(fitting - warm_up, _GROWTH * before.count))
            turns[experiment.name] = _turn(experiment, count, warm_up, ranks, experiment.watch)
            rates[experiment.name].append(turns[experiment.name].images_per_s)
    return {name: Rate(tuple(values)) for name, values in rates.items()}


@dataclass(frozen=True)
class _Turn:
    """The same on all ranks: images a second over all of them, batches, and seconds for each, by the clock or with
    the start and the warm-up."""

    images_per_s: float
    count: int
    s_per_batch: float
    s_with_start: float


def _least_s(experiment: Experiment, before: _Turn) -> float:
    """What the shortest turn of it takes."""
    count = min(experiment.warm_up, experiment.least) + max(experiment.every, experiment.least)
    return min(experiment.most, count) * before.s_per_batch


def _turn(experiment: Experiment, count: int, warm_up: int, ranks: Ranks, watch: Watch) -> _Turn:
    warm_up = min(warm_up, experiment.most - 1)
    room = experiment.most - warm_up
    count = min(count, room)
    count = min(room, max(experiment.every, count - count % experiment.every))
    work = experiment.work
    num_images = 0
    opened = time.perf_counter()
    with experiment.around(), closing(experiment.batches(warm_up + count)) as batches:
        for batch in itertools.islice(batches, warm_up):
            if work is not None:
                work(batch)
        ranks.finish()
        ranks.barrier()
        watch.begin()
        started = time.perf_counter()
        for batch in watch.watched(itertools.islice(batches, count)):
            num_images += batch.num_valid
            if work is not None:
                work(batch)
        ranks.finish()
        ended = time.perf_counter()
        watch.end(ended - started)
    # ranks wait for each other in training, so the slowest counts
    seconds, whole = ranks.largest([max(1e-9, ended - started), max(1e-9, ended - opened)])
    return _Turn(sum(ranks.gather(num_images)) / seconds, count, seconds / count, whole / (warm_up + count))
