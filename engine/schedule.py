"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Callable

from .optim_config import OptimConfig

Schedule = Callable[[int], float]

_ONECYCLE_START, _ONECYCLE_END = 1 / 25, 1 / 25 / 1e4  # of the peak; torch's OneCycleLR defaults


def build_schedule(config: OptimConfig, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """Learning rate for step 0 … num_epochs × steps_per_epoch - 1.

    `onecycle` is torch's OneCycleLR with cosine annealing and its default start and end; momentum is not cycled.
    `cosine` rises linearly for `warmup_epochs`, then falls along half a cosine and would reach 0 after the last step.
    """
    total = num_epochs * steps_per_epoch
    peak = config.learning_rate
    if config.schedule == "onecycle":
        last_rising = config.rise_share * total - 1

        def one_cycle(step: int) -> float:
            if step <= last_rising:
                return _half_cosine(peak * _ONECYCLE_START, peak, step / last_rising if last_rising > 0 else 1.0)
            return _half_cosine(peak, peak * _ONECYCLE_END, (step - last_rising) / max(1e-9, total - 1 - last_rising))

        return one_cycle

    warmup = config.warmup_epochs * steps_per_epoch

    def cosine(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / max(1.0, warmup)
        return _half_cosine(peak, 0.0, (step - warmup) / max(1.0, total - warmup))

    return cosine


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
