"""Loops, loaders and steps of several configurations, measured in turns."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from loaders.api import FeedrateError
from loaders.choose import open_loader

from ..config import Config
from ..dist import Ranks
from ..step import TrainStep
from .feeds import RealFeed, on_the_device
from .measure import Experiment, Tell, measure
from .record import Rate
from .session import open_source, ready_step, synthetic, training
from .stored_batches import StoredBatches

Kind = Literal["loop", "loader", "step"]


@dataclass(frozen=True)
class Trial:
    """Measure of `config` the loop, its loader alone or its step alone, pages in memory. `name` is for the result."""

    name: str
    config: Config
    kind: Kind


def measure_trials(trials: Sequence[Trial], ranks: Ranks, seconds: float, rounds: int, tell: Tell) -> dict[str, Rate]:
    """The rate of each by its name, `rounds` numbers each, in about `seconds` after all is open.

    Configurations of the same batch train the same model. Raises FeedrateError where a configuration cannot be opened.
    """
    steps: dict[int, TrainStep] = {}
    with ExitStack() as stack:
        experiments = [_experiment(trial, ranks, steps, stack) for trial in trials]
        threads = trials[0].config.execution.threads if trials else 0
        torch.set_num_threads(threads or ranks.cpus)  # opening loaders may change it
        return measure(experiments, ranks, seconds, rounds, tell)


def refusal(trial: Trial, ranks: Ranks) -> str:
    """Why its loader cannot be opened, "" if it can."""
    try:
        with open_source(trial.config, ranks, lambda text: None) as source:
            open_loader(source.name, source.records, source.plan, source.options).close()
    except FeedrateError as error:
        return str(error)
    return ""


def _experiment(trial: Trial, ranks: Ranks, steps: dict[int, TrainStep], stack: ExitStack) -> Experiment:
    config = trial.config
    source = stack.enter_context(open_source(config, ranks, lambda text: None))
    workers = source.options.num_workers or 1
    batch_size = config.data.batch_size
    if trial.kind != "loader" and batch_size not in steps:
        steps[batch_size] = ready_step(source, config, ranks)
    if trial.kind == "step":
        stays = stack.enter_context(closing(synthetic(source, ranks.device)))
        return Experiment(trial.name, trial.name, partial(on_the_device, stays), training(steps[batch_size]), 2)
    feed = stack.enter_context(closing(RealFeed(source, StoredBatches(source.records, source.plan, ranks))))
    warm = partial(feed.warm, workers)
    queue = source.options.num_ahead + 2  # batches that were made before the clock started are used up by then
    if trial.kind == "loader":
        warm_up = max(2, min(queue, workers))
        return Experiment(trial.name, trial.name, warm, None, warm_up, every=workers)
    return Experiment(trial.name, trial.name, warm, training(steps[batch_size]), queue)
