"""`bench.py cifar-speed`: a preset beside airbench on the same images: seconds of training, and what accuracy."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError
from loaders.records import open_records

from ..machine import version_of
from ..process import run
from ..report import about, row, spread_text
from ..side_by_side import Say, Spread
from .cifar_job import CifarJob, CifarRun
from .cifar_sides import OURS, PEER, SIDES
from .page import where


@dataclass(frozen=True)
class CifarSettings:
    """At most `num_runs` runs a side, begun within `minutes`. `options` are ours, of engine/train.py. `finished_only`:
    make none, what is finished is all there is."""

    data: Path
    sides: tuple[str, ...]
    num_runs: int
    minutes: float
    device: str
    options: tuple[str, ...]
    timeout_s: float
    finished_only: bool = False


@dataclass(frozen=True)
class SideRuns:
    """All that is finished of a side, and why this call made no more, or ""; `were_begun`: some were there before;
    `has_failed`: it made no more because one failed."""

    runs: list[CifarRun]
    reason: str
    were_begun: bool
    has_failed: bool = False


def measure(settings: CifarSettings, folder: Path, say: Say) -> dict[str, Any]:
    """One side after the other, each in a process of its own; runs that `folder` has from an earlier call count.

    Raises FeedrateError where ours was asked for and has no run, or no side has.
    """
    for split in ("train", "val"):
        open_records(settings.data, split).close()  # says what is missing before anything runs
    found = {side: _side(side, settings, folder, say) for side in settings.sides}
    runs = {side: of_side.runs for side, of_side in found.items() if of_side.runs}
    needed = OURS if OURS in found else next(iter(found))
    if needed not in runs:
        raise FeedrateError(found[needed].reason)
    return {
        "settings": {
            "data": settings.data.name,
            "device": settings.device,
            "minutes": settings.minutes,
            "asked_runs": settings.num_runs,
            "options": list(settings.options),
            "in_one_go": not any(of_side.were_begun for of_side in found.values()),
        },
        **result(runs),
        "skipped": {side: of_side.reason for side, of_side in found.items() if not of_side.runs},
        "ended_early": {side: of_side.reason for side, of_side in found.items() if of_side.runs and of_side.reason},
        "failed": {side: of_side.reason for side, of_side in found.items() if of_side.has_failed},
    }


def _side(side: str, settings: CifarSettings, folder: Path, say: Say) -> SideRuns:
    data, where, kept = (str(path.resolve()) for path in (settings.data, folder / side, folder / f"{side}-runs"))
    job = CifarJob(
        side, data, where, kept, settings.num_runs, settings.minutes, settings.device, list(settings.options)
    )
    rounds = job.rounds()
    num_before = len(rounds.done)
    if settings.finished_only:
        return SideRuns(CifarRun.all_of(rounds.done), "" if num_before else "no run of it is finished", num_before > 0)
    told = f" ({num_before} from before)" if num_before else ""
    say(f"{side}: at most {settings.num_runs} runs{told} within {settings.minutes:g} min")
    reason, has_failed = _add_runs(job, folder, settings.timeout_s) if num_before < settings.num_runs else ("", False)
    runs = CifarRun.all_of(job.rounds().done)  # also of a process that was ended
    if reason:
        say(f"{side} {'ended early' if runs else 'is skipped'}: {reason}")
    return SideRuns(runs, reason, num_before > 0, has_failed)


def _add_runs(job: CifarJob, folder: Path, timeout_s: float) -> tuple[str, bool]:
    """Why it made none or was ended, or ""; and whether one failed."""
    path = folder / f"{job.side}.json"
    job.write(path)
    script = str(Path(__file__).with_name("cifar_once.py"))
    try:
        ran = run([sys.executable, script, str(path.resolve())], folder / f"{job.side}.log", timeout_s)
    except FeedrateError as error:
        return str(error), True
    told = ran.told()
    if "unavailable" in told:
        return ": ".join(filter(None, (told["unavailable"], SIDES[job.side].remedy))), False
    return "", False


def result(runs: Mapping[str, Sequence[CifarRun]]) -> dict[str, Any]:
    """Of each side seconds and accuracy over its runs; of ours the time to the mean accuracy that the other reaches,
    where both have runs."""
    sides = {
        side: {
            "title": SIDES[side].title,
            "version": version_of(SIDES[side].package, otherwise="of unknown version"),
            "train_s": Spread.of([one.train_s for one in of_side]).as_dict(),
            "final": Spread.of([one.final for one in of_side]).as_dict(),
            "final_mean": statistics.fmean(one.final for one in of_side),
            "final_deviation": statistics.stdev([one.final for one in of_side]) if len(of_side) > 1 else None,
            "runs": [{"epoch_s": one.epoch_s, "accuracy": one.accuracy, "final": one.final} for one in of_side],
        }
        for side, of_side in runs.items()
    }
    if not {OURS, PEER} <= runs.keys():
        return {"sides": sides, "target": None, "reached": None}
    target = sides[PEER]["final_mean"]
    reached = [seconds for one in runs[OURS] if (seconds := one.reached_s(target)) is not None]
    return {
        "sides": sides,
        "target": target,
        "reached": {
            "num_runs": len(runs[OURS]),
            "num_reached": len(reached),
            "seconds": Spread.of(reached).as_dict() if reached else None,
        },
    }


def page(measured: Mapping[str, Any]) -> str:
    """The page of `bench.py cifar-speed`."""
    settings = measured["settings"]
    lines = [
        "# CIFAR-10 against the clock",
        "",
        *about(measured),
        f"{where(measured)}; images: `{settings['data']}`; our options:"
        f" `{' '.join(settings['options']) or 'those of the preset'}`. Each side a process of its own, in which it"
        f" trains from scratch again and again: at most {settings['asked_runs']} runs, and none begun after"
        f" {settings['minutes']:g} min of a call. Seconds are of training alone, after a warm-up, without evaluation.",
        "",
        row("side", "n", "training", "accuracy: mean ± deviation", "lowest … highest"),
        row(*["---"] * 5),
    ]
    for name, side in measured["sides"].items():
        deviation = side["final_deviation"]
        mean = f"{side['final_mean']:.2%}" + ("" if deviation is None else f" ± {deviation:.2%}")
        span = f"{side['final']['lowest']:.2%} … {side['final']['highest']:.2%}"
        lines.append(row(name, str(side["final"]["n"]), spread_text(side["train_s"], "s"), mean, span))
    lines += ["", sentence(measured), ""]
    lines += [f"* `{name}` {side['version']}: {side['title']}." for name, side in measured["sides"].items()]
    lines += [f"* `{name}` was skipped: {why}" for name, why in measured["skipped"].items()]
    lines += [f"* `{name}` ended early: {why}" for name, why in measured["ended_early"].items()]
    return "\n".join(lines) + "\n"


def sentence(measured: Mapping[str, Any]) -> str:
    """How long ours takes to what the other reaches."""
    reached, target = measured["reached"], measured["target"]
    if reached is None:
        absent = next(side for side in SIDES if side not in measured["sides"])
        return f"`{absent}` did not run: nothing to compare with."
    if reached["seconds"] is None:
        return f"None of our {reached['num_runs']} runs reached {target:.2%}, the mean of {PEER}."
    theirs = measured["sides"][PEER]["train_s"]
    return (
        f"{reached['num_reached']} of our {reached['num_runs']} runs reached {target:.2%}, the mean of {PEER}, after"
        f" {spread_text(reached['seconds'], 's')} of training; it takes {spread_text(theirs, 's')}."
    )
