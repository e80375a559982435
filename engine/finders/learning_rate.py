"""The learning-rate range test: the rate grows from update to update, and the loss tells which rates are of use.

After Leslie Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017). What it trained is undone.
"""

import copy
import math
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from loaders.api import Batch, Loader
from loaders.errors import FeedrateError

from ..bounds import above_0, at_least
from ..build import build_step, choose_kernels
from ..config import Config
from ..data import open_data
from ..dist import Ranks
from ..model import start_model
from ..step import TrainStep

Say = Callable[[str], None]

_LEAST_UPDATES = 10
_SHARE = 0.1  # of the fall: where learning has begun; as much before its end more would soon be too much
_NOISE = 2  # standard deviations of a batch's loss that the fall must be larger than


@dataclass(frozen=True)
class SweepSettings:
    """Which rates are tried, and when to stop."""

    lowest_rate: float = 1e-6
    highest_rate: float = 10.0
    num_updates: int = 200
    growth: Literal["exponential", "linear"] = "exponential"
    smoothing_updates: int = 11
    """The loss is looked at as the mean over so many updates."""
    divergence: float = 4.0
    """The sweep stops where that mean is so many times the lowest it was."""

    def __post_init__(self) -> None:
        above_0(lowest_rate=self.lowest_rate)
        at_least(1, smoothing_updates=self.smoothing_updates, divergence=self.divergence)
        at_least(_LEAST_UPDATES, num_updates=self.num_updates)
        if not self.lowest_rate < self.highest_rate < math.inf:
            raise FeedrateError(
                f"the sweep goes from {self.lowest_rate} to {self.highest_rate}: its end must be above its start"
            )

    def rate(self, update: int) -> float:
        """Learning rate of update 0 … num_updates - 1; the first and the last are the two ends."""
        progress = update / (self.num_updates - 1)
        if self.growth == "linear":
            return self.lowest_rate + (self.highest_rate - self.lowest_rate) * progress
        return self.lowest_rate * math.exp(progress * math.log(self.highest_rate / self.lowest_rate))


@dataclass(frozen=True)
class Sweep:
    """What was measured: for each update its rate, and the mean loss of its batches before it."""

    settings: SweepSettings
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    ending: str
    """Why it stopped where it did, as a sentence."""

    def smoothed(self) -> NDArray[np.float64]:
        """The mean of the losses around each update, fewer at both ends: centred, so that nothing lags behind."""
        if not self.losses:
            return np.zeros(0)
        width = self.settings.smoothing_updates
        ones, window = np.ones(len(self.losses)), np.ones(width)
        before = (width - 1) // 2
        part = slice(before, before + len(self.losses))
        mean: NDArray[np.float64] = np.convolve(self.losses, window)[part] / np.convolve(ones, window)[part]
        return mean


@dataclass(frozen=True)
class Suggestion:
    """Rates for a schedule to move between, and how they were derived."""

    minimum: float
    maximum: float
    lowest_loss_at: float
    derivation: str


def find_learning_rates(config: Config, ranks: Ranks, settings: SweepSettings, say: Say) -> Sweep:
    """The range test of a configuration, from its first weights, on its own data. Every rank must call it.

    Without Lookahead: setting weights back would hide from the loss what a rate does.
    """
    config = replace(config, optim=replace(config.optim, lookahead_every_updates=0))
    choose_kernels(config, ranks)  # first weights may be computed
    data = open_data(config, ranks, say)
    try:
        torch.set_num_threads(config.execution.threads or ranks.cpus)
        model = start_model(config, data, ranks, say, fresh=True)
        step = build_step(config, ranks, data.num_classes, data.channels, len(data.train), model)
        step.begin_epoch(0)
        return sweep(step, data.train, settings, ranks, say)
    finally:
        data.close()


def sweep(step: TrainStep, loader: Loader, settings: SweepSettings, ranks: Ranks, say: Say) -> Sweep:
    """Train on the loader's batches, epoch after epoch if it takes so many, one rate after the other.

    Stops early where the loss diverges or is not finite. Weights, optimizer, scaler, buffers, gradients and the
    generators are afterwards as they were, to the bit. Every rank must call it; all see the loss over all ranks.
    """
    rates: list[float] = []
    losses: list[float] = []
    recent: deque[float] = deque(maxlen=settings.smoothing_updates)
    lowest, ending = math.inf, f"it went on to its end, {settings.highest_rate:.3g}"
    with _as_it_was(step):
        step.schedule = settings.rate
        step.optimizer.zero_grad(set_to_none=True)  # a window that was open is put aside
        step.module.train()
        with closing(_updates(step, loader, ranks)) as updates:
            for update, loss in enumerate(updates):
                rate = settings.rate(update)
                if not math.isfinite(loss):
                    ending = f"the loss was {loss} at {rate:.3g}"
                    break
                rates.append(rate)
                losses.append(loss)
                recent.append(loss)
                mean = sum(recent) / len(recent)
                if len(recent) == recent.maxlen:  # a few lucky batches at the start are no measure
                    lowest = min(lowest, mean)
                if (update + 1) % 20 == 0:
                    say(f"update {update + 1} of {settings.num_updates}: rate {rate:.3g}, loss {mean:.3f}")
                if mean > settings.divergence * lowest:
                    ending = f"the loss was {settings.divergence:g} times its lowest at {rate:.3g}"
                    break
                if update + 1 == settings.num_updates:
                    break
    return Sweep(settings, tuple(rates), tuple(losses), ending)


def suggest(swept: Sweep) -> Suggestion | str:
    """Rates to use, by how much of its fall the smoothed loss has done; or why nothing can be said, as a sentence.

    By shares of the fall and not by its slope: what one update changes in the smoothed loss is the difference of two
    single batches, so the steepest place of all is often one where nothing is learnt yet. The first tenth of the
    updates is left out: there the loss falls or rises with the batches and not with the rate.
    """
    skipped = len(swept.rates) // 10
    if len(swept.rates) - skipped < _LEAST_UPDATES:
        return f"{len(swept.rates)} updates are too few to tell"
    rates, loss = np.array(swept.rates)[skipped:], swept.smoothed()[skipped:]
    lowest = int(loss.argmin())
    fall = loss[0] - loss[lowest]
    if lowest < 2 or not fall > 0:
        return "the loss did not fall"
    # of neighbours, whose rates are nearly the same
    noise = float(np.std(np.diff(swept.losses[: skipped + lowest + 1]))) / math.sqrt(2)
    if fall <= _NOISE * noise:
        return (
            f"the loss fell by {fall:.2g}, no more than {_NOISE} times what single batches differ by"
            f" ({noise:.2g}, a standard deviation)"
        )
    # where it is below for good: earlier a few lucky batches may bring it there
    begun, done = (
        1 + int(np.flatnonzero(loss[:lowest] > loss[0] - share * fall)[-1]) for share in (_SHARE, 1 - _SHARE)
    )
    maximum = float(rates[done])
    return Suggestion(
        minimum=min(float(rates[begun]), maximum / 10),
        maximum=maximum,
        lowest_loss_at=float(rates[lowest]),
        derivation="maximum: where the smoothed loss has done nine tenths of its fall; minimum: where it has done one"
        " tenth, and at most a tenth of the maximum",
    )


def _updates(step: TrainStep, loader: Loader, ranks: Ranks) -> Generator[float, None, None]:
    """The loss of one update after the other, over all ranks and all batches of its window."""
    losses: list[torch.Tensor] = []
    for number, batch in enumerate(_endless(loader)):
        loss, _ = step(batch.images, batch.labels, batch.ids, number)
        losses.append(loss.double())
        if step.windows.closes_at(number):
            yield ranks.sum(torch.stack(losses).mean()).item() / ranks.world_size
            losses = []


def _endless(loader: Loader) -> Iterator[Batch]:
    epoch = 0
    while True:
        with closing(loader.epoch(epoch)) as batches:
            yield from batches
        epoch += 1


@contextmanager
def _as_it_was(step: TrainStep) -> Iterator[None]:
    """Give everything that a step changes, of the model and of the process, back its bits."""
    module, optimizer, scaler = step.module, step.optimizer, step.precision.scaler
    tensors = [*module.parameters(), *module.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    gradients = [(p, None if p.grad is None else p.grad.clone()) for p in module.parameters()]
    was_training = [(part, part.training) for part in module.modules()]
    lookahead_state = copy.deepcopy(step.lookahead.state_dict())
    optimizer_state, scaler_state = copy.deepcopy(optimizer.state_dict()), scaler.state_dict()
    schedule, python_state, numpy_state = step.schedule, random.getstate(), np.random.get_state()
    device = step.normalize.device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(tensors, kept, strict=True):
                tensor.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for part, training in was_training:
            part.training = training
        optimizer.load_state_dict(optimizer_state)
        scaler.load_state_dict(scaler_state)
        step.lookahead.load_state_dict(lookahead_state)
        step.schedule = schedule
        random.setstate(python_state)
        np.random.set_state(numpy_state)
