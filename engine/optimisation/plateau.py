"""Lowering the learning rate when evaluations stop getting better: the one part of it that depends on what happened.

It multiplies a schedule that stays a pure function of the step, and its state is in every checkpoint.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from ..checkpointing.state import StateHolder
from ..nesting import is_within
from .optim_config import OptimConfig
from .schedule import Schedule


class RateWatch(StateHolder, Protocol):
    """What looks at evaluations and may lower the learning rate by them: `scale` is the share of the schedule's."""

    scale: float = 1.0

    def observe(self, evaluated: Mapping[str, Any]) -> bool:
        """Take in the record of an epoch, the same on every rank. Returns whether the rate was lowered."""
        ...

    def goes_by(self, setting: str) -> bool:
        """Whether another value of this setting, by its name in a run's identity, makes figures that cannot be
        compared with those before."""
        ...

    def begin_anew(self) -> None:
        """Forget what was observed, and keep the scale."""
        ...

    def lowering(self, schedule: Schedule) -> Schedule:
        """`schedule` times this object's scale as it is when a step asks."""
        return lambda step: schedule(step) * self.scale


class Unwatched(RateWatch):
    """For schedules that do not look at evaluations: nothing is observed and the scale stays 1."""

    def observe(self, evaluated: Mapping[str, Any]) -> bool:
        return False

    def goes_by(self, setting: str) -> bool:
        return False

    def begin_anew(self) -> None:
        """Nothing was observed."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take up nothing: there is nothing to go on from."""


class Plateau(RateWatch):
    """torch's ReduceLROnPlateau with a relative threshold and no cooldown.

    An evaluation is better if its metric beats the best so far by more than `plateau_threshold` of it. After more than
    `plateau_patience` in a row that were not, the rate is multiplied by `plateau_factor`, and the count starts anew. A
    metric that is not a number is never better.
    """

    def __init__(self, config: OptimConfig) -> None:
        self._config = config
        self._falls = config.plateau_metric.endswith("loss")  # a loss should fall, an accuracy rise
        self._lowest_scale = config.plateau_minimum / config.learning_rate
        self._best: float | None = None
        self._num_bad = 0

    def observe(self, evaluated: Mapping[str, Any]) -> bool:
        value = float(evaluated[self._config.plateau_metric])
        if self._is_better(value):
            self._best = value
            self._num_bad = 0
        else:
            self._num_bad += 1
        if self._num_bad <= self._config.plateau_patience:
            return False
        before = self.scale
        self.scale = max(before * self._config.plateau_factor, self._lowest_scale)
        self._num_bad = 0
        return self.scale < before

    def goes_by(self, setting: str) -> bool:
        return is_within(setting, "evaluation") or setting == "config.optim.plateau_metric"

    def begin_anew(self) -> None:
        self._best, self._num_bad = None, 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "best": self._best, "num_bad": self._num_bad}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take up what was observed. What another schedule left, where that is allowed, is nothing."""
        if state_dict:
            self.scale, self._best, self._num_bad = (state_dict[key] for key in ("scale", "best", "num_bad"))

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return not math.isnan(value)
        threshold = self._config.plateau_threshold
        return value < self._best * (1 - threshold) if self._falls else value > self._best * (1 + threshold)


def build_plateau(config: OptimConfig) -> RateWatch:
    """What watches the evaluations of a run with this schedule."""
    return Plateau(config) if config.schedule == "plateau" else Unwatched()
