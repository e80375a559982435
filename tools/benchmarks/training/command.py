"""`bench.py train`: its options, and what it does."""

import argparse
from pathlib import Path

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError

from ..arguments import names, positive, seconds
from ..report import measured_and_written
from ..side_by_side import Say
from .compare import TrainSettings, measure
from .sides import CASES, OURS, SIDES


def add_options(command: argparse.ArgumentParser) -> None:
    """What is compared, and on what."""
    add = command.add_argument
    add("--cases", type=names(CASES), default=tuple(CASES), metavar="NAME,…", help=f"{', '.join(CASES)} (all)")
    add("--sides", type=names(SIDES), default=tuple(SIDES), metavar="NAME,…", help=f"{', '.join(SIDES)} (all)")
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=positive, default=10, metavar="K", help="use each photo K times (10)")
    add("--batch-size", type=positive, default=0, metavar="B", help="of all cases (each case's own)")
    add("--threads", type=positive, default=available_cpus(), metavar="T", help="of torch (as many as processors)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU where there is one)")
    add("--layout", choices=("channels-last", "contiguous"), default="channels-last", help="of all (channels-last)")
    add("--seconds", type=seconds, default=2.0, metavar="S", help="a timed window lasts at least so long (2)")
    add("--quick", action="store_true", help="one short round, to see whether everything runs; its figures mean little")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from . import bars, page  # bring in matplotlib

    if OURS not in chosen.sides:
        raise FeedrateError(f"--sides {','.join(chosen.sides)} lacks {OURS}, which all are compared with")
    settings = TrainSettings(
        chosen.cases,
        chosen.sides,
        chosen.source,
        1 if chosen.quick else chosen.repeat,
        1 if chosen.quick else chosen.rounds,
        chosen.threads,
        chosen.workers,
        chosen.batch_size,
        device_of(chosen.device),
        chosen.layout == "channels-last",
        0.2 if chosen.quick else chosen.seconds,
        chosen.timeout_s,
    )
    return measured_and_written(chosen, "train", lambda: measure(settings, chosen.work, say), page.page, bars.draw)


def device_of(asked: str) -> str:
    """ "cpu" or "cuda". Raises FeedrateError where torch sees no GPU that was asked for."""
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise FeedrateError("--device is cuda and torch sees no GPU here: use --device cpu")
    return "cuda" if there and asked != "cpu" else "cpu"
