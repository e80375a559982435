"""`bench.py cifar-speed`: a preset beside airbench on the same images: seconds of training, and what accuracy."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError
from loaders.records import open_records

from ..process import run
from ..report import about, row, spread_text
from ..side_by_side import Say, Spread
from .cifar_job import CifarJob, CifarRun
from .cifar_sides import OURS, PEER, SIDES
from .page import where
from .turns import SKIPPED


@dataclass(frozen=True)
class CifarSettings:
    """At most `num_runs` runs a side, begun within `minutes`. `options` are ours, of engine/train.py."""

    data: Path
    sides: tuple[str, ...]
    num_runs: int
    minutes: float
    device: str
    options: tuple[str, ...]
    timeout_s: float


def measure(settings: CifarSettings, folder: Path, say: Say) -> dict[str, Any]:
    """One side after the other, each in a process of its own. Raises FeedrateError where ours cannot run."""
    for split in ("train", "val"):
        open_records(settings.data, split).close()  # says what is missing before anything runs
    found = {side: _side(side, settings, folder, say) for side in settings.sides}
    if reason := found[OURS].get(SKIPPED):
        raise FeedrateError(reason)
    runs = {side: [CifarRun(**one) for one in told["runs"]] for side, told in found.items() if SKIPPED not in told}
    return {
        "settings": {
            "data": settings.data.name,
            "device": settings.device,
            "minutes": settings.minutes,
            "asked_runs": settings.num_runs,
            "options": list(settings.options),
            "in_one_go": True,
        },
        **result(runs),
        "skipped": {side: told[SKIPPED] for side, told in found.items() if SKIPPED in told},
    }


def _side(side: str, settings: CifarSettings, folder: Path, say: Say) -> dict[str, Any]:
    path = folder / f"{side}.json"
    where = str((folder / side).resolve())
    data, options = str(settings.data.resolve()), list(settings.options)
    CifarJob(side, data, where, settings.num_runs, settings.minutes, settings.device, options).write(path)
    script = str(Path(__file__).with_name("cifar_once.py"))
    say(f"{side}: at most {settings.num_runs} runs within {settings.minutes:g} min")
    try:
        ran = run([sys.executable, script, str(path.resolve())], folder / f"{side}.log", settings.timeout_s)
        told: dict[str, Any] = json.loads(ran.output.splitlines()[-1])
        if "unavailable" in told:
            raise FeedrateError(": ".join(filter(None, (told["unavailable"], SIDES[side].remedy))))
    except FeedrateError as error:
        say(f"{side} is skipped: {error}")
        return {SKIPPED: str(error)}
    return told


def result(runs: Mapping[str, Sequence[CifarRun]]) -> dict[str, Any]:
    """Of each side seconds and accuracy over its runs; of ours the time to the mean accuracy that the other reaches."""
    sides = {
        side: {
            "title": SIDES[side].title,
            "version": _version(SIDES[side].package),
            "train_s": Spread.of([one.train_s for one in of_side]).as_dict(),
            "final": Spread.of([one.final for one in of_side]).as_dict(),
            "final_mean": statistics.fmean(one.final for one in of_side),
            "final_deviation": statistics.stdev([one.final for one in of_side]) if len(of_side) > 1 else None,
            "runs": [{"epoch_s": one.epoch_s, "accuracy": one.accuracy, "final": one.final} for one in of_side],
        }
        for side, of_side in runs.items()
    }
    if PEER not in runs:
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
        f" {settings['minutes']:g} min. Seconds are of training alone, after a warm-up, without evaluation.",
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
    return "\n".join(lines) + "\n"


def sentence(measured: Mapping[str, Any]) -> str:
    """How long ours takes to what the other reaches."""
    reached, target = measured["reached"], measured["target"]
    if reached is None:
        return f"`{PEER}` did not run: nothing to compare with."
    if reached["seconds"] is None:
        return f"None of our {reached['num_runs']} runs reached {target:.2%}, the mean of {PEER}."
    theirs = measured["sides"][PEER]["train_s"]
    return (
        f"{reached['num_reached']} of our {reached['num_runs']} runs reached {target:.2%}, the mean of {PEER}, after"
        f" {spread_text(reached['seconds'], 's')} of training; it takes {spread_text(theirs, 's')}."
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
