"""Loops, loaders and steps of several configurations, measured in turns."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from loaders.api import Batch
from loaders.errors import FeedrateError

from ..config import Config
from ..dist import Ranks
from ..safeguards.memory import is_out_of_memory, release_memory
from .feeds import RealFeed, on_the_device
from .measure import Experiment, Tell, measure
from .record import Rate
from .session import open_source, ready_step, synthetic, training
from .stored_batches import StoredBatches

Kind = Literal["loop", "loader", "step"]
Train = Callable[[Batch], None]

_OUT_OF_MEMORY = "out of memory"  # so a step that finds none begins its sentence


@dataclass(frozen=True)
class Trial:
    """Measure of `config` the loop, its loader alone or its step alone, pages in memory. `name` is for the result."""

    name: str
    config: Config
    kind: Kind


def measure_trials(
    trials: Sequence[Trial], ranks: Ranks, seconds: float, rounds: int, tell: Tell
) -> tuple[dict[str, Rate], dict[str, str]]:
    """(each one's rate by its name, `rounds` numbers each, in about `seconds` after all is open; why others have none).

    Configurations of the same batch train the same model; all models stay, since trials take turns. Of one process: a
    trial that cannot be opened or breaks off (an image that is none, memory that does not suffice) is left out.
    """
    train_by_batch: dict[int, Train] = {}
    failed: dict[str, str] = {}
    experiments: list[Experiment] = []
    threads = (trials[0].config.execution.threads if trials else 0) or ranks.cpus
    with ExitStack() as stack:
        for trial in trials:
            torch.set_num_threads(threads)  # before a step is compiled, which is for this number
            release_memory(ranks.device)  # what was measured before, or broke off, may lie there still
            try:
                with _guarded(trial.name):
                    experiment = _experiment(trial, ranks, train_by_batch, stack)
                    experiments.append(replace(experiment, around=partial(_guarded, trial.name)))
            except _BrokenOff as error:
                failed[error.name] = error.reason
        torch.set_num_threads(threads)  # opening loaders may change it
        ends_at = time.monotonic() + seconds
        while experiments:
            try:
                return measure(experiments, ranks, max(0.0, ends_at - time.monotonic()), rounds, tell), failed
            except _BrokenOff as error:
                failed[error.name] = error.reason
                tell(f"left out: {error.name}: {error.reason}")
                experiments = [other for other in experiments if other.name != error.name]
            release_memory(ranks.device)
    return {}, failed


class _BrokenOff(Exception):
    """A trial that cannot be measured, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


@contextmanager
def _guarded(name: str) -> Iterator[None]:
    """What opens or runs the trial called so: what it may fail of is raised as `_BrokenOff`."""
    try:
        yield
        return
    except (FeedrateError, RuntimeError, MemoryError) as error:
        if not (isinstance(error, FeedrateError) or is_out_of_memory(error)):
            raise
        reason = str(error) if isinstance(error, FeedrateError) else _OUT_OF_MEMORY
    if reason.startswith(_OUT_OF_MEMORY):
        reason = reason.partition(";")[0]  # what would fit is for whoever trains with it
    raise _BrokenOff(name, reason)


def _experiment(trial: Trial, ranks: Ranks, train_by_batch: dict[int, Train], stack: ExitStack) -> Experiment:
    config = trial.config
    source = stack.enter_context(open_source(config, ranks, lambda text: None))
    workers = source.options.num_workers or 1
    batch_size = config.data.batch_size
    if trial.kind != "loader" and batch_size not in train_by_batch:
        train_by_batch[batch_size] = training(ready_step(source, config, ranks), config)
    if trial.kind == "step":
        stays = stack.enter_context(closing(synthetic(source, ranks.device)))
        return Experiment(trial.name, trial.name, partial(on_the_device, stays), train_by_batch[batch_size], 2)
    feed = stack.enter_context(closing(RealFeed(source, StoredBatches(source.records, source.plan, ranks))))
    every = feed.burst(workers)
    queue = source.options.num_ahead + 2  # batches that were made before the clock started are used up by then
    if trial.kind == "loader":
        alone = partial(feed.warm, workers, device=feed.alone_on)
        return Experiment(trial.name, trial.name, alone, None, max(2, min(queue, workers)), every=every)
    loop = partial(feed.warm, workers)
    return Experiment(trial.name, trial.name, loop, train_by_batch[batch_size], queue, every=every)
