"""`bench.py profiler-overhead`: the same run with the profiler's clocks and without, in turns, and what that gives."""

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.profiler.bootstrap import median_interval
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError

from ..arguments import names, positive
from ..process import run
from ..report import measured_and_written
from ..rounds import Rounds
from ..side_by_side import Say, Spread
from ..training.command import device_of
from .job import CASES, SPANS_PER_STEP, Job

SIDES = ("timed", "bare")
MOST = 0.01  # what being told where the time goes may cost
_FIGURES = ("s_per_image", "cpu_s_per_image")
_LOG_EVERY_STEPS = 20  # a run's default


@dataclass(frozen=True)
class OverheadSettings:
    """What is trained how often. `pairs`: of epochs of each run. `is_quick`: a fraction of the images, to see whether
    everything runs."""

    cases: tuple[str, ...]
    num_rounds: int
    pairs: int
    num_workers: int
    num_threads: int
    timeout_s: float
    is_quick: bool = False
    device: str = "cpu"


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    add("--cases", type=names(CASES), default=tuple(CASES), metavar="NAME,…", help=f"({','.join(CASES)})")
    add("--pairs", type=positive, default=12, metavar="P", help="of epochs of each run, with and without (12)")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="(cpu)")
    add("--threads", type=positive, default=available_cpus(), metavar="T", help="of torch (as many as processors)")
    add("--quick", action="store_true", help="one short round, to see whether everything runs; its figures mean little")


def settings_of(chosen: argparse.Namespace) -> OverheadSettings:
    """What the options say."""
    rounds, pairs = (2, 1) if chosen.quick else (chosen.rounds, chosen.pairs)
    return OverheadSettings(
        chosen.cases,
        rounds,
        pairs,
        chosen.workers,
        chosen.threads,
        chosen.timeout_s,
        chosen.quick,
        device_of(chosen.device),
    )


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from .page import page  # which takes from here what timing may cost

    settings = settings_of(chosen)
    return measured_and_written(chosen, "profiler_overhead", lambda: measure(settings, chosen.work, say), page)


def measure(settings: OverheadSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds images and runs meanwhile.

    A round is a run in a process of its own, whose epochs are timed and not in turns; what is first changes from round
    to round. Raises FeedrateError where timing changed the weights.
    """
    told = {
        "workers": settings.num_workers,
        "threads": settings.num_threads,
        "pairs": settings.pairs,
        "quick": settings.is_quick,
        "device": settings.device,
    }
    rounds = Rounds(folder, told)
    for name in settings.cases:
        data, num_images = folder / f"{name}-images", _num_images(name, settings)
        if not (data / "train").is_dir():
            say(f"{name}: writing {num_images:,} images")
            CASES[name].write(data, num_images)
        if f"{name}/costs" not in rounds.done:
            rounds.add(f"{name}/costs", _run(name, True, 0, data, settings, folder))
        for number in range(settings.num_rounds):
            if f"{name}/{number}" not in rounds.done:
                load = round(os.getloadavg()[0], 2)
                rounds.add(
                    f"{name}/{number}", {"load_1_min": load, **_run(name, False, number, data, settings, folder)}
                )
                pairs = Cost.of(
                    *(_values([rounds.done[f"{name}/{number}"]], side)["cpu_s_per_image"] for side in SIDES)
                )
                say(f"{name}, round {number + 1} of {settings.num_rounds}: {pairs.median - 1:+.2%} processor time")
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return {"settings": told, "cases": {name: result(name, settings, rounds.done) for name in settings.cases}}


@dataclass(frozen=True)
class Cost:
    """The median of n ratios, with ÷ without, of turns next to each other; and its 95 % interval."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, timed: Sequence[float], bare: Sequence[float]) -> "Cost":
        """Of pairs."""
        return cls.of_values([with_it / without for with_it, without in zip(timed, bare, strict=True)])

    @classmethod
    def of_values(cls, values: Sequence[float]) -> "Cost":
        """By drawing them again and again."""
        return cls(statistics.median(values), *median_interval(values), len(values))


def result(name: str, settings: OverheadSettings, done: Mapping[str, Any]) -> dict[str, Any]:
    """Of each side its figures as spreads with every turn; what timing costs, by pairs of turns and by counting."""
    rounds = [done[f"{name}/{number}"] for number in range(settings.num_rounds)]
    if len({one["weights_sha256"] for one in rounds}) > 1:
        raise FeedrateError(f"{name}: weights differ between runs: timing must not change any bit")
    values = {side: _values(rounds, side) for side in SIDES}
    cpu_s = Spread.of(values["bare"]["cpu_s_per_image"]).median
    return {
        "title": CASES[name].title,
        "load_1_min": [one["load_1_min"] for one in rounds],
        "sides": {
            side: {key: {**Spread.of(of_turns).as_dict(), "turns": of_turns} for key, of_turns in figures.items()}
            for side, figures in values.items()
        },
        "costs": {key: asdict(Cost.of(values["timed"][key], values["bare"][key])) for key in _FIGURES},
        "counted": counted(done[f"{name}/costs"], CASES[name].batch_size, cpu_s, _num_images(name, settings)),
    }


def counted(costs: Mapping[str, Any], batch_size: int, cpu_s_per_image: float, num_images: int) -> dict[str, Any]:
    """What all of it takes of a step, µs of processor time: in the loop's own thread, and in the loader with its
    interval; and as a share of the step."""
    num_steps = num_images // batch_size
    own_us = SPANS_PER_STEP * costs["span_us"] + costs["batch_us"]
    own_us += costs["line_us"] / _LOG_EVERY_STEPS
    loader = Cost.of_values(costs["loader_us"])
    step_us = 1e6 * cpu_s_per_image * batch_size
    shares = {
        key: (own_us + batch_size * max(0.0, getattr(loader, key))) / step_us for key in ("median", "low", "high")
    }
    return {
        **{key: costs[key] for key in ("span_us", "batch_us", "line_us", "epoch_us")},
        "loader_us_per_image": asdict(loader),
        "own_us_per_step": own_us,
        "epoch_us_per_step": costs["epoch_us"] / num_steps,
        "step_us": step_us,
        "batch_size": batch_size,
        "share": shares,
    }


def _values(rounds: Sequence[Mapping[str, Any]], side: str) -> dict[str, list[float]]:
    """Of every turn of the side, in order."""
    return {key: [turn[key] for one in rounds for turn in one["sides"][side]] for key in _FIGURES}


def _num_images(name: str, settings: OverheadSettings) -> int:
    return 4 * CASES[name].batch_size if settings.is_quick else CASES[name].num_images


def _run(name: str, counts: bool, number: int, data: Path, settings: OverheadSettings, folder: Path) -> dict[str, Any]:
    case = CASES[name]
    job = Job(
        counts,
        number % 2 == 0,
        str(data.resolve()),
        str((folder / "runs").resolve()),
        case.size_px,
        case.batch_size,
        settings.pairs,
        settings.num_workers,
        settings.num_threads,
        settings.device,
    )
    path = folder / "job.json"
    job.write(path)
    script = str(Path(__file__).with_name("once.py"))
    ran = run([sys.executable, script, str(path.resolve())], folder / "last.log", settings.timeout_s)
    return ran.told()
