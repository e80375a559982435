"""The predictions of `profile.py`: what each change would bring, and `--apply`, which tries two of them."""

import argparse
import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.dist import Ranks
from engine.profiler.calibration import calibrated_changes, with_batch, with_path, with_workers
from engine.profiler.measure import Tell
from engine.profiler.number_text import interval_text, rate_text, signed_share_text
from engine.profiler.rate import Rate
from engine.profiler.record import Profile, WhatIf
from engine.profiler.session import Budget
from engine.profiler.trials import Trial, measure_trials
from engine.profiler.what_if import Change, NotPredictable, Predictor, plain_changes, predict_all
from loaders.errors import FeedrateError

from . import error_history
from .packed_sample import FORMATS, packed_samples

LEVELS = ("full", "quick", "none")
_CALIBRATION_SHARE = 0.5  # of --minutes, on top of them
_CALIBRATION_IMAGES = 256
_APPLIED_IMAGES = 1024
_NOW = "as it is"
_MOST_AN_HOUR = 1_000_000_000

Predicted = list[tuple[Change, WhatIf]]


@dataclass(frozen=True)
class Wishes:
    """What is wanted of predictions."""

    level: str = "full"
    is_applied: bool = False
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.is_applied and self.level == "none":
            raise FeedrateError("--apply tries predictions and --what-if none makes none: leave one of them out")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour <= _MOST_AN_HOUR:
            raise FeedrateError(
                f"--price-per-hour {self.price_per_hour:g} is no price: give 0 or more, and {_MOST_AN_HOUR:,} at most"
            )


def add_options(own: argparse.ArgumentParser) -> None:
    """Those of predictions."""
    add = own.add_argument
    text = "predict changes: full (short turns of other batches, loaders and formats), quick (none of those), none"
    add("--what-if", choices=LEVELS, default="full", help=f"{text} (full)")
    add("--apply", action="store_true", help="try the best predicted change and another one, and say how wrong it was")
    add("--price-per-hour", type=float, metavar="PRICE", help="of the machine, for what an epoch costs")


def wishes_of(chosen: argparse.Namespace, world_size: int) -> Wishes:
    """What the options say. Raises FeedrateError on those that cannot be fulfilled."""
    wishes = Wishes(chosen.what_if, chosen.apply, chosen.price_per_hour)
    if world_size > 1 and wishes.is_applied:
        raise FeedrateError("--apply tries changes in one process: leave it out, or run it without torchrun")
    if world_size > 1 and wishes.level == "full":
        return dataclasses.replace(wishes, level="quick")  # packing and other loaders are tried in one process alone
    return wishes


def how_long(budget: Budget, wishes: Wishes) -> str:
    """What is to be done and how long each takes, where whole batches do not take longer."""
    parts = [f"to measure, about {budget.minutes:.2g} minutes"]
    if wishes.level == "full":
        parts.append(f"to predict, {_CALIBRATION_SHARE * budget.minutes:.2g} more")
    if wishes.is_applied:
        parts.append(f"to try two of the predictions, {budget.minutes:.2g} more")
    return f"{'; '.join(parts)}; opening and packing come on top"


def with_predictions(
    measured: Profile, config: Config, ranks: Ranks, budget: Budget, wishes: Wishes, tell: Tell
) -> Profile:
    """The same with predictions, with what was tried of them, and in its notes with why others are not there."""
    if wishes.level == "none":
        return measured
    config = dataclasses.replace(config, loader=measured.subject.loader)  # "auto" might choose another for a part
    changes, refused = plain_changes(measured)
    if wishes.level == "full":
        more, reasons = _calibrated(measured, config, ranks, budget, tell)
        changes, refused = changes + more, refused + reasons
    else:
        why = "tried in one process, without torchrun" if ranks.world_size > 1 else "not tried with --what-if quick"
        gpu_decode = "" if measured.subject.device == "cpu" else ", GPU decode"
        refused.append(f"batch, loader{gpu_decode} and format: {why}")
    predicted, reasons = predict_all(measured, changes, wishes.price_per_hour)
    refused += reasons
    notes = [f"not predicted: {'; '.join(refused)}"] if refused else []
    runs = Path(config.run.folder)
    if wishes.is_applied:
        predicted, reasons = apply(measured, config, ranks, budget, predicted, tell)
        error_history.append(runs, measured, [row for _, row in predicted if row.measured is not None])
        notes += [f"not tried: {'; '.join(reasons)}"] if reasons else []
    if told := error_history.summary(runs):
        notes.append(told)
    ceilings = dataclasses.replace(measured.ceilings, notes=(*measured.ceilings.notes, *notes))
    return dataclasses.replace(measured, ceilings=ceilings, what_if=tuple(row for _, row in predicted))


def _calibrated(
    measured: Profile, config: Config, ranks: Ranks, budget: Budget, tell: Tell
) -> tuple[list[Change], list[str]]:
    """Changes of batch, loader and format, measured one side at a time."""
    seconds = _CALIBRATION_SHARE * 60 * budget.minutes
    with ExitStack() as stack:
        samples, refused = None, [f"formats: loader '{measured.subject.loader}' keeps the set decoded"]
        if measured.subject.stored_bytes is not None:
            tell(f"packing up to {_CALIBRATION_IMAGES} of its images in {len(FORMATS)} formats, for predictions")
            try:
                samples, refused = stack.enter_context(packed_samples(config, list(FORMATS), _CALIBRATION_IMAGES))
            except FeedrateError as error:
                refused = [f"formats: {error}"]
        tell(f"what batches, loaders and formats change, one side at a time: about {seconds / 60:.2g} minutes")
        found, more = calibrated_changes(measured, config, ranks, samples, seconds, budget.rounds, tell)
        return found, refused + more


def apply(
    measured: Profile, config: Config, ranks: Ranks, budget: Budget, predicted: Predicted, tell: Tell
) -> tuple[Predicted, list[str]]:
    """Try the best and one that was held out, in turns with the loop as it is: (all, these two with what was measured;
    why one of them was not tried).

    What is noted as measured is the profile's rate times the ratio that was measured, so that a machine that has become
    slower since is no error of the prediction.
    """
    first, other = best(measured, predicted), held_out(measured, predicted)
    refused = [] if first else ["no change that can be tried is predicted to help"]
    refused += [] if other else ["there is no change to hold out"]
    with ExitStack() as stack:
        trials = []
        for change, _ in filter(None, (first, other)):
            try:
                trials.append(Trial(change.text, _configured(change, config, stack, tell), "loop"))
            except FeedrateError as error:
                refused.append(f"{change.text}: {error}")
        for reason in refused:
            tell(f"--apply: {reason}")
        if not trials:
            return predicted, refused
        names = " and ".join(trial.name for trial in trials)
        long = f"{budget.rounds} rounds, {budget.minutes:g} minutes"
        tell(f"--apply tries {names}, in turns with the loop as it is: {long}")
        trials.insert(0, Trial(_NOW, config, "loop"))
        rates, failed = measure_trials(trials, ranks, 60 * budget.minutes, budget.rounds, tell)
    refused += [f"{name}: {reason}" for name, reason in failed.items()]
    now = rates.pop(_NOW, None)
    if now is None:
        return predicted, refused
    tell(f"the loop as it is: {rate_text(now.median)} img/s; it was {rate_text(measured.ceilings.loop.median)}")
    tried = {row.change: _tried(row, rates[row.change], now, measured) for _, row in predicted if row.change in rates}
    for row in tried.values():
        tell(
            f"{row.change}: predicted {rate_text(row.predicted)} img/s ({interval_text(row.low, row.high)}), measured"
            f" {rate_text(row.measured)}, error {signed_share_text(row.error)}"
        )
    return [(change, tried.get(change.text, row)) for change, row in predicted], refused


def best(measured: Profile, predicted: Predicted) -> tuple[Change, WhatIf] | None:
    """The change that is a setting and promises most; None where none promises more than there is now."""
    try:
        now = Predictor(measured).predict(Change(_NOW)).predicted
    except NotPredictable:  # how fast reading is, without which the loop from memory is the most there is
        now = measured.ceilings.loop.median
    possible = [pair for pair in predicted if _can_be_tried(pair[0]) and pair[1].predicted > now]
    return max(possible, key=lambda pair: pair[1].predicted, default=None)


def held_out(measured: Profile, predicted: Predicted) -> tuple[Change, WhatIf] | None:
    """One that is not the best and of which nothing was measured: a number of workers outside the sweep, else any."""
    first = best(measured, predicted)
    others = [pair for pair in predicted if pair is not first and _can_be_tried(pair[0])]
    unseen = [pair for pair in others if pair[0].workers not in (None, *measured.ceilings.loader)]
    return next(iter(unseen or others), None)


def _can_be_tried(change: Change) -> bool:
    return bool(change.settings) and "data.page_cache" not in change.settings


def _configured(change: Change, config: Config, stack: ExitStack, tell: Tell) -> Config:
    """The configuration with the change made, of another format over images packed for as long as `stack` lasts."""
    if change.format:
        tell(f"packing up to {_APPLIED_IMAGES:,} images: {change.text}")
        samples, refused = stack.enter_context(packed_samples(config, [change.format], _APPLIED_IMAGES))
        if samples is None or change.format not in samples.formats:
            raise FeedrateError("; ".join(refused))
        return with_path(config, samples.formats[change.format].path)
    if change.workers is not None:
        return with_workers(config, change.workers)
    if "loader" in change.settings:
        return dataclasses.replace(config, loader=str(change.settings["loader"]))
    return with_batch(config, int(change.settings["data.batch_size"]))


def _tried(row: WhatIf, rate: Rate, now: Rate, measured: Profile) -> WhatIf:
    ratio = Rate(tuple(new / old for new, old in zip(rate.rounds, now.rounds, strict=True))).median
    found = ratio * measured.ceilings.loop.median
    return dataclasses.replace(row, measured=found, error=(row.predicted - found) / found)
