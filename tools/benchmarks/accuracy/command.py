"""`bench.py accuracy`: its options, and what it does."""

import argparse
from pathlib import Path

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError, did_you_mean

from ..arguments import add_finished_only, positive, seeds
from ..process import REPOSITORY
from ..report import free_paths, head, write_json, write_text
from ..side_by_side import Say

_LOADERS = "turbo,torchvision,ffcv,dali"


def add_options(command: argparse.ArgumentParser) -> None:
    """Which runs, and where they are."""
    add = command.add_argument
    add("--config", required=True, metavar="PRESET", help="a file in configs/, or a TOML file")
    add("--data", type=Path, metavar="PATH", help="as --data.path of engine/train.py (the preset's)")
    add("--loaders", default=_LOADERS, metavar="NAME,…", help=f"({_LOADERS})")
    add("--seeds", type=seeds, default=(0, 1, 2), metavar="N,…", help="(0,1,2)")
    folder = REPOSITORY / "runs" / "accuracy"
    add("--folder", type=Path, default=folder, help="of the runs; finished ones are not run again (runs/accuracy)")
    add("--threads", type=positive, default=available_cpus(), metavar="T", help="of torch (as many as processors)")
    add("--workers", type=positive, default=available_cpus(), metavar="W", help="of the loader (the same)")
    add("--timeout-s", type=positive, default=86_400, metavar="S", help="end a run that takes longer (86400)")
    add_finished_only(command)


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Make the runs that are missing, and write the report. Returns its files."""
    from . import curves, page, result, runs  # bring in torch and matplotlib

    settings = runs.AccuracySettings(
        chosen.config,
        chosen.data.resolve() if chosen.data else None,
        _known_loaders(chosen.loaders),
        chosen.seeds,
        chosen.folder.resolve(),
        chosen.threads,
        chosen.workers,
        chosen.timeout_s,
        chosen.finished_only,
    )
    paths = free_paths(chosen.report, f"accuracy_{settings.preset}", ["json", "md", "png"], chosen.overwrite)
    trained, skipped = runs.train_all(settings, say)
    measured = {**head(), **result.result(settings, trained, skipped)}
    write_json(paths["json"], measured)
    curves.draw(paths["png"], measured)
    write_text(paths["md"], page.page(measured, paths["png"].name))
    return paths


def _known_loaders(text: str) -> tuple[str, ...]:
    from loaders.choose import LOADER_NAMES

    loaders = tuple(dict.fromkeys(text.split(",")))
    for name in loaders:
        if name not in LOADER_NAMES:
            near = did_you_mean(name, LOADER_NAMES)
            raise FeedrateError(f"--loaders: '{name}' is unknown: {near}known are {', '.join(LOADER_NAMES)}")
    return loaders
