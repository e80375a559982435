"""Averages of the weights over training: exponential (EMA) and stochastic weight averaging (SWA).

torch's AveragedModel is not used: its update reads how many it averaged from a tensor and copies that to the device,
which makes the host wait at every step. The arithmetic is the same, one lerp over all tensors.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from loaders.errors import FeedrateError

from ..bounds import above_0, at_least, between
from ..dist import Ranks
from ..models.freezing import let_rest_as
from .windows import Windows

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class AverageConfig:
    """Averages of the weights over training, each evaluated beside the weights themselves."""

    ema_decay: float = 0.0
    """Exponential moving average: the share it keeps of itself each time, such as 0.999; 0: none."""
    ema_every_updates: int = 1
    ema_warmup: bool = True
    """The n-th time it keeps (1 + n) / (10 + n) where that is less, so that the first weights are soon forgotten."""
    swa_start_epoch: int = -1
    """Stochastic weight averaging: the first epoch, counted from 0, at whose end weights are averaged; -1: none."""
    swa_learning_rate: float = 0.05
    """Constant from swa_start_epoch on, in place of the schedule."""
    swa_statistics_batches: int = 0
    """Training batches from which its BatchNorm statistics are estimated before an evaluation; 0: a whole epoch."""

    def __post_init__(self) -> None:
        between(0, 1, ema_decay=self.ema_decay)
        at_least(1, ema_every_updates=self.ema_every_updates)
        at_least(-1, swa_start_epoch=self.swa_start_epoch)
        at_least(0, swa_statistics_batches=self.swa_statistics_batches)
        above_0(swa_learning_rate=self.swa_learning_rate)

    def names(self) -> tuple[str, ...]:
        """Of the averages that are kept."""
        return ("ema",) * (self.ema_decay > 0) + ("swa",) * (self.swa_start_epoch >= 0)

    def refuse_idle_ema(self, num_updates: int) -> None:
        """Raise FeedrateError where the EMA of a run of so many updates would take in no weights."""
        if self.ema_decay > 0 and self.ema_every_updates > num_updates:
            raise FeedrateError(
                f"ema_every_updates is {self.ema_every_updates} and the run makes {num_updates} updates: nothing would"
                " be averaged"
            )

    def ema_weight(self, num_averaged: int) -> float:
        """Share of the newest weights once `num_averaged` are in; the first are taken whole."""
        if num_averaged == 0:
            return 1.0
        warm = (1 + num_averaged) / (10 + num_averaged) if self.ema_warmup else 1.0
        return 1.0 - min(self.ema_decay, warm)

    def schedule(self, schedule: Callable[[int], float], updates_per_epoch: int) -> Callable[[int], float]:
        """`schedule`, up to where SWA has a constant rate of its own."""
        if self.swa_start_epoch < 0:
            return schedule
        start = self.swa_start_epoch * updates_per_epoch
        return lambda update: schedule(update) if update < start else self.swa_learning_rate


class Average:
    """A running average of a model's weights and buffers: the copy `model`, and how many it is of.

    `weight_of` says, from the number averaged so far, with which share the next come in. Buffers that count are copied.
    """

    def __init__(self, source: nn.Module, weight_of: Callable[[int], float]) -> None:
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.num_averaged = 0
        self._weight_of = weight_of

    @torch.no_grad()
    def add(self, source: nn.Module) -> None:
        """Take in the weights as they are now. The host waits for nothing."""
        ours, theirs = ([tensor for _, tensor in tensors_of(model)] for model in (self.model, source))
        averaged = [i for i, tensor in enumerate(ours) if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [ours[i] for i in averaged], [theirs[i] for i in averaged], self._weight_of(self.num_averaged)
        )
        for own, other in zip(ours, theirs, strict=True):
            if not own.is_floating_point():
                own.copy_(other)
        self.num_averaged += 1

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data for a checkpoint."""
        return {"num_averaged": self.num_averaged, "model": self.model.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.num_averaged = state_dict["num_averaged"]
        self.model.load_state_dict(state_dict["model"])


class Averages:
    """Those of one run, each under its name."""

    def __init__(self, source: nn.Module, config: AverageConfig, windows: Windows) -> None:
        self._source = source
        self._config = config
        self._windows = windows
        self._named: dict[str, Average] = {}
        if "ema" in config.names():
            self._named["ema"] = Average(source, config.ema_weight)
        if "swa" in config.names():
            self._named["swa"] = Average(source, lambda num_averaged: 1 / (num_averaged + 1))
        self._swa_epochs: list[int] = []  # at whose ends it took in the weights

    def after_step(self, step: int) -> None:
        """To be called after each global step: takes in the weights of every `ema_every_updates`-th update."""
        updates = self._windows.update_of(step) + 1
        if "ema" in self._named and self._windows.closes_at(step) and updates % self._config.ema_every_updates == 0:
            self._named["ema"].add(self._source)

    def after_epoch(self, epoch: int, inputs: Iterable[torch.Tensor], autocast: Autocast, ranks: Ranks) -> None:
        """To be called by every rank before the evaluation of each epoch: from its start on, SWA takes in the weights.

        `inputs` are float [B, 3, H, W] images as the model trains on; they are read only if they are needed.
        """
        if "swa" not in self._named or epoch < self._config.swa_start_epoch:
            return
        swa = self._named["swa"]
        if epoch not in self._swa_epochs:  # as where this epoch's end is met again
            swa.add(self._source)
            self._swa_epochs.append(epoch)
        let_rest_as(self._source, swa.model)
        estimate_statistics(swa.model, inputs, autocast, ranks)

    def models(self) -> dict[str, nn.Module]:
        """The averages there are by now, to be evaluated beside the model itself."""
        return {name: average.model for name, average in self._named.items() if average.num_averaged}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data for a checkpoint."""
        averages = {name: average.state_dict() for name, average in self._named.items()}
        return averages | ({"swa_epochs": list(self._swa_epochs)} if "swa" in averages else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; an average that was not kept then starts from here, and so does SWA's where
        it is of epochs before the one from which it now begins."""
        start = self._config.swa_start_epoch
        for name, average in self._named.items():
            if name not in state_dict:
                continue
            if name == "swa":
                # checkpoints did not always tell
                epochs = state_dict.get("swa_epochs", range(start, start + state_dict[name]["num_averaged"]))
                if any(epoch < start for epoch in epochs):
                    continue
                self._swa_epochs = list(epochs)
            average.load_state_dict(state_dict[name])


@torch.no_grad()
def estimate_statistics(model: nn.Module, inputs: Iterable[torch.Tensor], autocast: Autocast, ranks: Ranks) -> None:
    """Give the BatchNorms of `model`, whose weights are an average, statistics that belong to those weights.

    Each becomes the mean over all batches of all ranks, every batch counting alike, as torch's `update_bn` has it;
    only the norms are in training mode, so dropout is off. Every rank must call it with equally many batches.
    A model without BatchNorm reads no batch. `model` is left in evaluation mode.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    norms = [norm for norm in norms if norm.train().training]  # those that rest stay as they are
    if not norms:
        return
    with _plain_means(norms):
        for images in inputs:
            with autocast():
                model(images)
    for norm in norms:
        norm.eval()
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None
            ranks.sum(statistic).div_(ranks.world_size)


@contextmanager
def _plain_means(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, each norm's statistics are the plain mean of what it has seen since, in place of a moving one.

    That is what torch does for the momentum None, to the bit; but for this it would read from the device, before each
    batch, how many there have been.
    """
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    counting = [norm.register_forward_pre_hook(_counted()) for norm in norms]
    try:
        yield
    finally:
        for norm, momentum, hook in zip(norms, momenta, counting, strict=True):
            norm.momentum = momentum
            hook.remove()


def _counted() -> Callable[[_BatchNorm, Any], None]:
    """Before the n-th use of a norm: what comes in now has 1/n of the mean."""
    uses = itertools.count(1)

    def before(norm: _BatchNorm, inputs: Any) -> None:
        norm.momentum = 1.0 / next(uses)

    return before


def tensors_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Its parameters, then its buffers, by their names."""
    yield from model.named_parameters()
    yield from model.named_buffers()
