"""`bench.py what-if`: predictions of many changes beside what was then measured, and how wrong they were."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from loaders.errors import FeedrateError

from ..arguments import duration, names
from ..process import REPOSITORY, run
from ..report import measured_and_written
from ..rounds import Rounds
from ..side_by_side import Say
from .job import BASES, DEFAULT_BASES, Job

KINDS = ("workers", "batch", "format", "loader")
_QUICK_MINUTES = 0.05


@dataclass(frozen=True)
class WhatIfSettings:
    """What is profiled, how long each base takes, how often each rate is taken."""

    bases: tuple[str, ...]
    data: Path
    minutes: float
    num_rounds: int
    timeout_s: float
    is_quick: bool = False


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    data = REPOSITORY / "data" / "long"
    add(
        "--bases",
        type=names(BASES),
        default=DEFAULT_BASES,
        metavar="NAME,…",
        help=f"{', '.join(BASES)} ({','.join(DEFAULT_BASES)})",
    )
    add("--data", type=Path, default=data, help="folder that holds the packed sets (data/long)")
    add("--minutes", type=duration("minutes", 60), default=1.8, metavar="M", help="of each base (1.8)")
    add("--quick", action="store_true", help="two short rounds, to see whether everything runs; figures mean little")


def settings_of(chosen: argparse.Namespace) -> WhatIfSettings:
    """What the options say. Raises FeedrateError where the images are not there."""
    for name in chosen.bases:
        if not (chosen.data / BASES[name].data).exists():
            raise FeedrateError(
                f"{chosen.data / BASES[name].data} does not exist: name the folder that holds it by --data"
            )
    minutes, rounds = (_QUICK_MINUTES, 2) if chosen.quick else (chosen.minutes, chosen.rounds)
    return WhatIfSettings(chosen.bases, chosen.data, minutes, rounds, chosen.timeout_s, chosen.quick)


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from .page import draw, page  # bring in matplotlib

    settings = settings_of(chosen)
    return measured_and_written(chosen, "what_if", lambda: measure(settings, chosen.work, say), page, draw)


def measure(settings: WhatIfSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Profile, predict and measure all bases that are not done yet, each in a process of its own."""
    told = {"minutes": settings.minutes, "rounds": settings.num_rounds, "quick": settings.is_quick}
    rounds = Rounds(folder, told)
    for name in settings.bases:
        if name not in rounds.done:
            say(f"{name}: {BASES[name].text}")
            job = Job(
                name,
                str(settings.data.resolve()),
                str((folder / "runs").resolve()),
                settings.minutes,
                settings.num_rounds,
            )
            job.write(folder / "job.json")
            script = str(Path(__file__).with_name("once.py"))
            command = [sys.executable, script, str((folder / "job.json").resolve())]
            ran = run(command, folder / "last.log", settings.timeout_s)
            rounds.add(name, ran.told())
            say(sentence(errors_of(judged(rounds.done[name]))))
    told["in_one_go"] = not rounds.were_begun
    return {"settings": told, "bases": {name: _result(name, rounds.done[name]) for name in settings.bases}}


def _result(name: str, done: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": BASES[name].text, **done, "changes": judged(done)}


def judged(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each change its measured rate, and errors of the prediction.

    error        of predicted ÷ base as profiled against measured ÷ base as measured in the same rounds: what slows
                 a whole round cancels
    plain_error  of the predicted rate against the measured one
    is_within    whether the measured ratio lies within the predicted interval
    """
    found = []
    for change in done["changes"]:
        now = change["now"]
        ratio = median(new / old for new, old in zip(change["measured"], done["base"], strict=True))
        found.append(
            {
                **change,
                "ratio": change["predicted"] / now,
                "measured_ratio": ratio,
                "error": change["predicted"] / now / ratio - 1,
                "plain_error": change["predicted"] / median(change["measured"]) - 1,
                "is_within": change["low"] / now <= ratio <= change["high"] / now,
            }
        )
    return found


def errors_of(changes: Sequence[Mapping[str, Any]], key: str = "error") -> dict[str, float]:
    """How many, the median and the 95th percentile of the errors' sizes, the largest, and how many intervals held."""
    sizes = [abs(change[key]) for change in changes]
    return {
        "n": len(sizes),
        "median": float(np.median(sizes)),
        "p95": float(np.percentile(sizes, 95)),
        "largest": max(sizes),
        "within": sum(bool(change["is_within"]) for change in changes) / len(sizes),
    }


def sentence(errors: Mapping[str, float]) -> str:
    """In words."""
    return (
        f"{errors['n']} predictions were off by {errors['median']:.1%} in the median, {errors['p95']:.1%} at the 95th"
        f" percentile, {errors['largest']:.1%} at most; {errors['within']:.0%} were within their interval"
    )
