"""`profile.py self-test`: does the profiler find what is put in on purpose?

Puts known delays into stages of loading and training, one at a time: sleeping, as waiting for a disk does, and
spinning, as work does; of half, once and twice the slack, which is the delay from which on that stage limits. Then it
profiles, and counts what was named. What was measured is kept, cell by cell: the same command goes on after an
interruption, and measures again what other programs disturbed. Let nothing else run beside it.
"""

import argparse
import signal
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.profiler.self_test.cells import KINDS, NUM_SEEDS, PLANTED, SIZES, Cell, Outcome, matrix
from engine.profiler.self_test.planting import Effort
from engine.profiler.self_test.scores import label, score
from loaders.choose import choose_loader
from loaders.errors import FeedrateError
from tools.benchmarks import json_lines
from tools.benchmarks.arguments import Parser, names, seeds
from tools.benchmarks.machine import describe
from tools.benchmarks.report import free_paths
from tools.benchmarks.rounds import code_sha256, held

from . import self_test_report
from .self_test_runs import groups_of, write_images
from .self_test_runs import run as run_cells

LOADERS = ("torchvision", "turbo", "ffcv", "dali")
_SIZES = tuple(f"{size:g}" for size in SIZES)
_QUICK_SIZES = ("0.5", "2")
# what outcomes hang on: what is measured, measures and judges; not what trains, reports or keeps outcomes
_CODE = (
    "loaders",
    "engine/augment",
    "engine/models",
    "engine/optimisation",
    "engine/profiler",
    "engine/build.py",
    "engine/data.py",
    "engine/dist.py",
    "engine/model.py",
    "engine/sampling.py",
    "engine/step.py",
    "tools/profiling/self_test_group.py",
    "tools/profiling/self_test_runs.py",
)


class Results:
    """Outcomes in a file, a line each, with a hash of the code they were measured on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._code = code_sha256(_CODE)
        self.outcomes: dict[str, Outcome] = {}
        for line in json_lines.read(path):
            if line["code"] == self._code:
                self._note(Outcome.from_json(line["outcome"]))

    def add(self, outcome: Outcome) -> None:
        """Keep one more, on disk before this returns."""
        self._note(outcome)
        json_lines.append(self._path, [{"code": self._code, "outcome": outcome.as_json()}])

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those that were not measured yet, or not undisturbed."""
        done = {key for key, outcome in self.outcomes.items() if not outcome.is_disturbed}
        return [cell for cell in cells if cell.key not in done]

    def of(self, cells: Sequence[Cell]) -> list[Outcome]:
        """What was measured of them."""
        return [self.outcomes[cell.key] for cell in cells if cell.key in self.outcomes]

    def _note(self, outcome: Outcome) -> None:
        self.outcomes[outcome.cell.key] = outcome


def run(arguments: Sequence[str], console: Console) -> int:
    """Measure what is missing and print; returns 0 where every promise that cells tell of is kept, 1 where one is not
    or no cell tells of any, 130 interrupted.

    Raises FeedrateError on bad input.
    """
    chosen = parse(arguments)
    cells = cells_of(chosen, console)
    folder: Path = chosen.out
    folder.mkdir(parents=True, exist_ok=True)
    paths = free_paths(chosen.report, "self_test", ("md", "json", "png"), chosen.overwrite) if chosen.report else {}
    with held(folder, "--out"):
        results = Results(folder / "cells.jsonl")
        missing = results.missing(cells)
        console.print(f"{len(cells)} cells, of which {len(cells) - len(missing)} are measured", markup=False)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # processes of a group are ended then, too
        try:
            if not chosen.measure_nothing:
                _measure(missing, results, chosen, console)
        except KeyboardInterrupt:
            console.print("interrupted: the same command goes on after the last cell")
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)
    outcomes = results.of(cells)
    scores = score(outcomes)
    self_test_report.show(console, outcomes, scores)
    if paths:
        machine = {**describe(), "command": " ".join(["python tools/profile.py self-test", *arguments])}
        told = self_test_report.as_json(outcomes, scores, machine, date.today().isoformat(), len(cells))
        self_test_report.write(paths, outcomes, told)
        console.print(f"written to {', '.join(map(str, paths.values()))}", markup=False)
    kept = [promise.kept for promise in scores.promises()]
    return int(False in kept or not any(kept))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError."""
    parser = Parser(
        prog="profile.py self-test",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--loaders", type=names(LOADERS), default=LOADERS, metavar="NAME,…", help=f"({','.join(LOADERS)})")
    add("--planted", type=_planted, default=PLANTED, metavar="NAME,…", help=f"({','.join(PLANTED)})")
    add("--kinds", type=names(KINDS), default=KINDS, metavar="NAME,…", help=f"({','.join(KINDS)})")
    add("--sizes", type=names(_SIZES), default=_SIZES, metavar="X,…", help=f"in slacks ({','.join(_SIZES)})")
    every = tuple(range(NUM_SEEDS))
    add("--seeds", type=seeds, default=every, metavar="N,…", help=f"({','.join(map(str, every))})")
    add("--quick", action="store_true", help="one seed, and nothing of exactly the slack")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto)")
    add("--out", type=Path, default=Path("runs/self-test"), metavar="DIR", help="what is kept (runs/self-test)")
    add("--data", type=Path, default=Path("data/self-test"), metavar="DIR", help="images, made once (data/self-test)")
    add("--report", type=Path, metavar="DIR", help="also write a page, a plot and all figures into this folder")
    add("--overwrite", action="store_true", help="replace today's report")
    add("--measure-nothing", action="store_true", help="only tell what was measured before")
    return parser.parse_args(arguments)


def cells_of(chosen: argparse.Namespace, console: Console) -> list[Cell]:
    """What is to be measured. A loader that is not installed is told, and left out."""
    loaders = []
    for loader in chosen.loaders:
        try:
            choose_loader(loader)
        except FeedrateError as error:
            console.print(f"left out: {error}", markup=False)
        else:
            loaders.append(loader)
    if not loaders:
        raise FeedrateError(f"none of the loaders {', '.join(chosen.loaders)} is installed: there is nothing to test")
    wanted = [size for size in chosen.sizes if not chosen.quick or size in _QUICK_SIZES]
    if not wanted:
        raise FeedrateError(f"--quick leaves out --sizes {','.join(chosen.sizes)}: give another, or no --quick")
    wanted_seeds = chosen.seeds[:1] if chosen.quick else chosen.seeds
    return matrix(loaders, chosen.planted, chosen.kinds, tuple(map(float, wanted)), wanted_seeds)


def _planted(text: str) -> tuple[str, ...]:
    """Names of PLANTED; "slow-rank" need not be quoted."""
    return names(PLANTED)(text.replace("slow-rank", "slow rank"))


def _measure(missing: list[Cell], results: Results, chosen: argparse.Namespace, console: Console) -> None:
    if not missing:
        return
    data = write_images(chosen.data.resolve())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("measuring", total=len(missing))
        for group in groups_of(missing, data, chosen.device, Effort()):
            for outcome in run_cells(group, chosen.out / "log"):
                results.add(outcome)
                told = outcome.note or label(outcome) + (", disturbed" if outcome.is_disturbed else "")
                progress.update(task, advance=1, description=f"{outcome.cell.key} → {told}")
                if not console.is_terminal:  # where no bar is drawn
                    console.print(f"{outcome.cell.key} → {told}", markup=False)
