"""How weights move: the settings of optimizer, learning rate, loss and clipping."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from loaders.errors import FeedrateError, did_you_mean

from ..bounds import above_0, at_least, between

# the plain names; `timm/<name>` is any optimizer of timm's. Which class each is stands in optim.py
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lars", "lamb", "muon")
_WITH_NESTEROV = ("sgd", "lars", "muon")


@dataclass(frozen=True)
class OptimConfig:
    """How weights move. The learning rate is the peak, for the global batch as it is: nothing is rescaled."""

    name: str = "sgd"
    """sgd, adam, adamw, rmsprop (torch's), lars, lamb, muon (timm's), or any of timm's as timm/NAME."""
    learning_rate: float = 0.125
    momentum: float = 0.9
    """Of sgd, rmsprop, lars, muon, and those of timm's that have one."""
    nesterov: bool = False
    """Of sgd, lars and muon. Timm's variants with it have names of their own, such as timm/nlars."""
    betas: tuple[float, ...] = ()
    """The two of adam and its kin, lamb, and of muon for what it leaves to AdamW; none: as the optimizer has them."""
    options: tuple[str, ...] = ()
    """More of the optimizer's own arguments, as NAME=VALUE: eps=1e-6, alpha=0.9, trust_coeff=0.02."""
    weight_decay: float = 5e-5
    """On weights of two and more dimensions; biases, norms, scales and position embeddings do not decay."""
    decay_factors: tuple[tuple[str, float], ...] = ()
    """Pairs of a pattern of parameters' names and what multiplies weight_decay for those it fits, whether they decay
    otherwise or not, as "*.bias" 1; where several fit the last counts."""
    rate_factors: tuple[tuple[str, float], ...] = ()
    """Pairs of a pattern of parameters' names and what multiplies the learning rate of those it fits, as "fc.*" 10;
    where several fit the last counts."""
    frozen_epochs: tuple[tuple[str, int, int], ...] = ()
    """A pattern of parameters' names, the epoch from which what it fits is not trained, counted from 0, and the one
    from which it is again, -1 for the end, as "layer1.*" 0 5; where several fit the last counts."""
    schedule: Literal["constant", "linear", "cosine", "onecycle", "step", "polynomial", "piecewise", "plateau"] = (
        "cosine"
    )
    """Of the learning rate, over the whole run, by the step. plateau: constant, and lowered after evaluations."""
    warmup_epochs: float = 2.0
    """Linear rise from 0. onecycle and piecewise do not use it: they rise as they say themselves."""
    final_share: float = 0.0
    """Of the peak: where linear, cosine and polynomial end."""
    power: float = 2.0
    """Exponent of polynomial."""
    rise_share: float = 0.3
    """Share of the run in which the rate rises, for onecycle."""
    start_divisor: float = 25.0
    """onecycle starts at the peak divided by this,"""
    final_divisor: float = 1e4
    """and ends at its start divided by this."""
    milestones: tuple[float, ...] = ()
    """Epochs at which step multiplies the rate by milestone_factor."""
    milestone_factor: float = 0.1
    points: tuple[tuple[float, float], ...] = ()
    """For piecewise: pairs of epoch and share of the peak, joined by straight lines. 0 1e-4 2 1 16 0 is FFCV's."""
    plateau_metric: Literal["eval_loss", "eval_top1", "eval_top5"] = "eval_loss"
    """What must get better for plateau not to lower the rate."""
    plateau_factor: float = 0.1
    """The rate is multiplied by this"""
    plateau_patience: int = 10
    """once more evaluations in a row than this were no better than the best,"""
    plateau_threshold: float = 1e-4
    """better meaning by more than this share of the best,"""
    plateau_minimum: float = 0.0
    """and never below this learning rate."""
    lookahead_every_updates: int = 0
    """Lookahead as airbench has it: slow weights, to which the weights are set after so many updates each; 0: none."""
    lookahead_share: float = 0.774
    """What they keep of themselves at the end of the run; before, the cube of its progress times that."""
    label_smoothing: float = 0.1
    clip_norm: float = 0.0
    """Largest norm of all gradients together; 0: no clipping."""
    accumulate: int = 1
    """Batches whose gradients make one update together, their mean taken; the schedule counts updates."""
    clip_value: float = 0.0
    """Largest size of each number of a gradient, cut before clip_norm; 0: no clipping."""

    def __post_init__(self) -> None:
        at_least(0, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)
        at_least(0, clip_norm=self.clip_norm, clip_value=self.clip_value)
        between(0, 1, momentum=self.momentum, label_smoothing=self.label_smoothing, rise_share=self.rise_share)
        above_0(learning_rate=self.learning_rate)
        at_least(0, lookahead_every_updates=self.lookahead_every_updates)
        between(0, 1, lookahead_share=self.lookahead_share)
        at_least(1, accumulate=self.accumulate)
        for pattern, factor in self.rate_factors:
            if not 0 < factor < math.inf:
                raise FeedrateError(
                    f"rate_factors has {factor:g} for '{pattern}': a factor must be a number above 0;"
                    " --model.freeze-backbone keeps weights as they are"
                )
        for pattern, factor in self.decay_factors:
            if not 0 <= factor < math.inf:
                raise FeedrateError(
                    f"decay_factors has {factor:g} for '{pattern}': a factor must be a number, 0 or more"
                )
        for pattern, first, end in self.frozen_epochs:
            if first < 0 or not (end == -1 or end >= first):
                raise FeedrateError(
                    f"frozen_epochs has {first} and {end} for '{pattern}': the first epoch must be 0 or more, and the"
                    " second one no less, or -1 for the end of the run"
                )
        self._check_optimizer()
        self._check_schedule()
        self._check_plateau()

    def _check_optimizer(self) -> None:
        if not self.name.startswith("timm/") and self.name not in OPTIMIZERS:
            known = [*OPTIMIZERS, f"timm/{self.name}"]
            raise FeedrateError(
                f"unknown optimizer '{self.name}': {did_you_mean(self.name, known)}known are {', '.join(OPTIMIZERS)},"
                " and timm/NAME for any of timm's"
            )
        if self.nesterov and self.name not in _WITH_NESTEROV:
            raise FeedrateError(
                f"nesterov is on and the optimizer is {self.name}: only {', '.join(_WITH_NESTEROV)} have it"
            )
        if len(self.betas) not in (0, 2) or not all(0 <= beta < 1 for beta in self.betas):
            raise FeedrateError(f"betas are {self.betas}: they must be two numbers from 0 to below 1, or none")
        if self.nesterov and self.momentum == 0:
            raise FeedrateError("nesterov is on and momentum is 0: Nesterov's step needs momentum above 0")

    def _check_schedule(self) -> None:
        above_0(start_divisor=self.start_divisor, final_divisor=self.final_divisor, power=self.power)
        above_0(milestone_factor=self.milestone_factor)
        between(0, 1, final_share=self.final_share)
        if self.schedule == "step" and not self.milestones:
            raise FeedrateError("schedule is step: --optim.milestones must name the epochs at which the rate falls")
        if self.schedule == "step" and not _ascends((self.warmup_epochs, *self.milestones, math.inf)):
            raise FeedrateError(
                f"milestones are {self.milestones}: they must be rising epochs, after the {self.warmup_epochs} of"
                " warm-up"
            )
        if self.schedule == "piecewise" and not self.points:
            raise FeedrateError("schedule is piecewise: --optim.points must give pairs of epoch and share of the peak")
        epochs = [epoch for epoch, _ in self.points]
        if not _ascends(epochs) or not all(0 <= number < math.inf for pair in self.points for number in pair):
            raise FeedrateError(
                f"points are {self.points}: they must be pairs of epoch and share of the peak, epochs rising from 0 on,"
                " no share below 0, all of them finite"
            )

    def _check_plateau(self) -> None:
        at_least(0, plateau_patience=self.plateau_patience, plateau_minimum=self.plateau_minimum)
        between(0, 1, plateau_threshold=self.plateau_threshold)
        if not 0 < self.plateau_factor < 1:
            raise FeedrateError(f"plateau_factor is {self.plateau_factor}: it must lie between 0 and 1")
        if self.plateau_minimum > self.learning_rate:
            raise FeedrateError(
                f"plateau_minimum is {self.plateau_minimum}: it must not be above the learning_rate,"
                f" {self.learning_rate}"
            )


def _ascends(epochs: list[float] | tuple[float, ...]) -> bool:
    return all(earlier < later for earlier, later in itertools.pairwise(epochs))
