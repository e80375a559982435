"""`bench.py profiler-overhead`: the same run with the profiler's clocks and without, in turns, and what that gives."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError

from ..arguments import names, positive
from ..process import run
from ..rounds import Rounds
from ..side_by_side import Say, Spread, ratio
from ..training.command import device_of
from .job import CASES, Job

SIDES = {"timed": True, "bare": False}
_FIGURES = ("s_per_image", "cpu_s_per_image")


@dataclass(frozen=True)
class OverheadSettings:
    """What is trained how long, how often. `is_quick`: a fraction of the images, to see whether everything runs."""

    cases: tuple[str, ...]
    num_rounds: int
    epochs: int
    num_workers: int
    num_threads: int
    timeout_s: float
    is_quick: bool = False
    device: str = "cpu"


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    add("--cases", type=names(CASES), default=tuple(CASES), metavar="NAME,…", help=f"({','.join(CASES)})")
    add("--epochs", type=positive, default=5, metavar="E", help="of each run, beside one that warms up (5)")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="(cpu)")
    add("--threads", type=positive, default=available_cpus(), metavar="T", help="of torch (as many as processors)")
    add("--quick", action="store_true", help="one short round, to see whether everything runs; its figures mean little")


def settings_of(chosen: argparse.Namespace) -> OverheadSettings:
    """What the options say."""
    rounds, epochs = (1, 1) if chosen.quick else (chosen.rounds, chosen.epochs)
    return OverheadSettings(
        chosen.cases,
        rounds,
        epochs,
        chosen.workers,
        chosen.threads,
        chosen.timeout_s,
        chosen.quick,
        device_of(chosen.device),
    )


def measure(settings: OverheadSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds images and runs meanwhile.

    In each round both sides have their turn, each in a process of its own. Raises FeedrateError where timing changed
    the weights.
    """
    told = {
        "workers": settings.num_workers,
        "threads": settings.num_threads,
        "epochs": settings.epochs,
        "quick": settings.is_quick,
        "device": settings.device,
    }
    rounds = Rounds(folder, told)
    for name in settings.cases:
        data, num_images = folder / f"{name}-images", _num_images(name, settings)
        if not (data / "train").is_dir():
            say(f"{name}: writing {num_images:,} images")
            CASES[name].write(data, num_images)
        for number in range(settings.num_rounds):
            if f"{name}/{number}" not in rounds.done:
                rounds.add(f"{name}/{number}", _round(name, data, settings, folder))
                both = rounds.done[f"{name}/{number}"]["sides"]
                times = ", ".join(f"{side} {figures['s_per_image'] * 1e6:,.1f} µs" for side, figures in both.items())
                say(f"{name}, round {number + 1} of {settings.num_rounds}: {times} an image")
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return {"settings": told, "cases": {name: result(name, settings, rounds.done) for name in settings.cases}}


def result(name: str, settings: OverheadSettings, done: Mapping[str, Any]) -> dict[str, Any]:
    """Of each side its figures as spreads with their rounds; ratios timed ÷ bare, round by round."""
    rounds = [done[f"{name}/{number}"]["sides"] for number in range(settings.num_rounds)]
    values = {side: {key: [one[side][key] for one in rounds] for key in _FIGURES} for side in SIDES}
    weights = {one[side]["weights_sha256"] for one in rounds for side in SIDES}
    if len(weights) > 1:
        raise FeedrateError(f"{name}: weights differ between runs: timing must not change any bit")
    return {
        "title": CASES[name].title,
        "num_images": rounds[0]["timed"]["num_images"],
        "load_1_min": [done[f"{name}/{number}"]["load_1_min"] for number in range(settings.num_rounds)],
        "sides": {
            side: {key: {**Spread.of(of_rounds).as_dict(), "rounds": of_rounds} for key, of_rounds in figures.items()}
            for side, figures in values.items()
        },
        "ratios": {key: ratio(values["timed"][key], values["bare"][key]).as_dict() for key in _FIGURES},
    }


def _num_images(name: str, settings: OverheadSettings) -> int:
    return 4 * CASES[name].batch_size if settings.is_quick else CASES[name].num_images


def _round(name: str, data: Path, settings: OverheadSettings, folder: Path) -> dict[str, Any]:
    load = os.getloadavg()[0]
    return {"load_1_min": round(load, 2), "sides": {side: _run(name, side, data, settings, folder) for side in SIDES}}


def _run(name: str, side: str, data: Path, settings: OverheadSettings, folder: Path) -> dict[str, Any]:
    case = CASES[name]
    job = Job(
        SIDES[side],
        str(data.resolve()),
        str((folder / "runs").resolve()),
        case.size_px,
        case.batch_size,
        settings.epochs + 1,
        settings.num_workers,
        settings.num_threads,
        settings.device,
    )
    path = folder / "job.json"
    job.write(path)
    script = str(Path(__file__).with_name("once.py"))
    ran = run([sys.executable, script, str(path.resolve())], folder / "last.log", settings.timeout_s)
    figures: dict[str, Any] = json.loads(ran.output.splitlines()[-1])
    return figures
