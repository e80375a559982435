"""`bench.py load`: its options, and what it does."""

import argparse
import json
from pathlib import Path

from ..arguments import names, positive, seconds
from ..report import measured_and_written
from ..side_by_side import Say
from .cases import CASES, DEFAULT_CASES
from .compare import LoadSettings, measure
from .sides import SIDES


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    shown = f"{', '.join(CASES)} ({','.join(DEFAULT_CASES)})"
    add("--cases", type=names(CASES), default=DEFAULT_CASES, metavar="NAME,…", help=shown)
    add("--sides", type=names(SIDES), metavar="NAME,…", help=f"{', '.join(SIDES)} (those of each case)")
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=positive, default=10, metavar="K", help="use each photo K times (10)")
    add("--batch-size", type=positive, default=64, metavar="B", help="of photos (64)")
    add("--seconds", type=seconds, default=2.0, metavar="S", help="a timed window lasts at least so long (2)")
    add("--quick", action="store_true", help="one short round, to see whether everything runs; its figures mean little")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from . import bars, page  # bring in matplotlib

    settings = LoadSettings(
        chosen.cases,
        chosen.sides,
        chosen.source,
        1 if chosen.quick else chosen.repeat,
        1 if chosen.quick else chosen.rounds,
        chosen.workers,
        chosen.batch_size,
        0.2 if chosen.quick else chosen.seconds,
        chosen.timeout_s,
    )
    return measured_and_written(chosen, "load", lambda: measure(settings, chosen.work, say), page.page, bars.draw)


def show(paths: dict[str, Path]) -> None:
    """The tables of a report, on the screen."""
    from rich.console import Console

    from .page import tables

    tables(json.loads(paths["json"].read_text()), Console(width=200))
