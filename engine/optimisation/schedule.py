"""The learning rate as a pure function of the update: nothing to save, nothing to restore."""

import bisect
import itertools
import math
from collections.abc import Callable

from .average import AverageConfig
from .optim_config import OptimConfig

Schedule = Callable[[int], float]

_Curve = Callable[[float], float]  # share of the peak at a share of the way


def schedule_of_run(
    optim: OptimConfig,
    average: AverageConfig,
    num_epochs: int,
    updates_per_epoch: int,
    lowering: Callable[[Schedule], Schedule] = lambda schedule: schedule,
) -> Schedule:
    """What a run trains by: `build_schedule`, which evaluations may be `lowering`, up to where SWA's constant rate
    begins."""
    scheduled = build_schedule(optim, num_epochs, updates_per_epoch)
    return average.schedule(lowering(scheduled), updates_per_epoch)


def build_schedule(config: OptimConfig, num_epochs: int, updates_per_epoch: int) -> Schedule:
    """Learning rate for update 0 … num_epochs × updates_per_epoch - 1.

    constant, plateau   the peak, once warm
    linear, cosine      from the peak to `final_share` of it, which would be reached after the last update
    polynomial          the same along (1 - progress) ** power, as torch's PolynomialLR
    step                the peak times `milestone_factor` for each milestone passed, as torch's MultiStepLR
    onecycle            torch's OneCycleLR with cosine annealing; momentum is not cycled
    piecewise           straight lines between `points`, and level before the first and after the last

    All but the last two rise linearly from 0 for `warmup_epochs` first: update k of W has (k + 1) / W of the peak, and
    no more than all of it where W is no whole number.
    """
    total = num_epochs * updates_per_epoch
    if config.schedule == "onecycle":
        return _one_cycle(config, total)
    if config.schedule == "piecewise":
        return _piecewise(config, updates_per_epoch)
    warmup = config.warmup_epochs * updates_per_epoch
    if config.schedule == "step":
        return _warmed(_step(config, updates_per_epoch), config.learning_rate, warmup)
    final = config.final_share
    curves: dict[str, _Curve] = {
        "constant": lambda progress: 1.0,
        "plateau": lambda progress: 1.0,
        "linear": lambda progress: final + (1 - final) * (1 - progress),
        "cosine": lambda progress: _half_cosine(1.0, final, progress),
        "polynomial": lambda progress: final + (1 - final) * (1 - progress) ** config.power,
    }
    curve = curves[config.schedule]

    def along(update: int) -> float:
        return config.learning_rate * curve((update - warmup) / max(1.0, total - warmup))

    return _warmed(along, config.learning_rate, warmup)


def short_of_peak(config: OptimConfig, num_epochs: int) -> str | None:
    """A warning where the warm-up takes all of the run, for people; None where it ends before."""
    if config.schedule in ("onecycle", "piecewise") or config.warmup_epochs < num_epochs:
        return None
    highest = config.learning_rate * num_epochs / config.warmup_epochs
    return (
        f"warning: the warm-up of {config.warmup_epochs:g} epochs takes all {num_epochs} of this run: the learning rate"
        f" rises to its end, to {highest:.3g} where the peak is {config.learning_rate:.3g}"
        " (--optim.warmup-epochs)"
    )


def _warmed(after: Schedule, peak: float, num_warmup_updates: float) -> Schedule:
    """A linear rise to `peak`, then `after`."""

    def warmed(update: int) -> float:
        if update < num_warmup_updates:
            return peak * min(1.0, (update + 1) / max(1.0, num_warmup_updates))
        return after(update)

    return warmed


def _step(config: OptimConfig, updates_per_epoch: int) -> Schedule:
    milestones = [round(epoch * updates_per_epoch) for epoch in config.milestones]
    return lambda update: config.learning_rate * config.milestone_factor ** bisect.bisect_right(milestones, update)


def _one_cycle(config: OptimConfig, total: int) -> Schedule:
    peak = config.learning_rate
    start = peak / config.start_divisor
    end = start / config.final_divisor
    last_rising = config.rise_share * total - 1

    def one_cycle(update: int) -> float:
        if update <= last_rising:
            return _half_cosine(start, peak, update / last_rising if last_rising > 0 else 1.0)
        return _half_cosine(peak, end, (update - last_rising) / max(1e-9, total - 1 - last_rising))

    return one_cycle


def _piecewise(config: OptimConfig, updates_per_epoch: int) -> Schedule:
    points = [(epoch * updates_per_epoch, config.learning_rate * share) for epoch, share in config.points]

    def piecewise(update: int) -> float:
        if update <= points[0][0]:
            return points[0][1]
        for (start, rate), (end, next_rate) in itertools.pairwise(points):
            if update <= end:
                return rate + (next_rate - rate) * (update - start) / (end - start)
        return points[-1][1]

    return piecewise


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
