"""What was measured, written for people (Markdown) and for programs (JSON)."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError

from .machine import describe
from .rounds import remove, working_folder


def free_paths(folder: Path, name: str, endings: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """Where today's report goes, by ending. Raises FeedrateError where there is one, before hours are spent."""
    if not folder.is_dir():
        raise FeedrateError(f"{folder} is no folder: give one with --report")
    paths = {ending: folder / f"{name}_{date.today().isoformat()}.{ending}" for ending in endings}
    there = [path for path in paths.values() if path.exists()]
    if there and not overwrite:
        raise FeedrateError(f"{there[0]} is there already: give --overwrite to replace it, or another --report")
    return paths


def write_json(path: Path, measured: Mapping[str, Any]) -> None:
    """Everything, each round of it."""
    write_text(path, json.dumps(measured, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole, or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def head() -> dict[str, Any]:
    """What every report begins with: today, and on what it is measured."""
    return {"date": date.today().isoformat(), "machine": describe()}


def measured_and_written(
    chosen: argparse.Namespace,
    name: str,
    measure: Callable[[], dict[str, Any]],
    page: Callable[..., str],
    draw: Callable[[Path, Mapping[str, Any]], None] | None = None,
) -> dict[str, Path]:
    """What most commands do: measure in the working folder, which is then removed, and write a page and all figures.

    page  of all that was measured; of the picture's name too, where there is one
    draw  makes the picture

    Returns the files by their endings. Raises FeedrateError, before anything is measured, where they cannot be written;
    and when all is written, where `measured["failed"]` has runs that failed, by their names: the same command then
    tries those again, given --overwrite.
    """
    paths = free_paths(chosen.report, name, ["json", "md", "png"] if draw else ["json", "md"], chosen.overwrite)
    with working_folder(chosen.work):
        measured = {**head(), **measure()}
        write_json(paths["json"], measured)
        if draw:
            draw(paths["png"], measured)
        write_text(paths["md"], page(measured, paths["png"].name) if draw else page(measured))
        failed = measured.get("failed", {})
        if not (getattr(chosen, "keep_work", False) or getattr(chosen, "finished_only", False) or failed):
            remove(chosen.work)
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise FeedrateError(
            f"{paths['md']} is written, without what failed ({told}): the same command with --overwrite tries it again"
        )
    return paths


def about(measured: Mapping[str, Any]) -> list[str]:
    """By which command, when and on what it was measured: a paragraph and an empty line."""
    machine = measured["machine"]
    packages = ("numpy", "simplejpeg", "opencv-python-headless", "ffcv")
    versions = {name: machine["versions"][name] for name in packages} | measured["settings"].get("packages", {})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    interrupted = "" if measured["settings"]["in_one_go"] else "; interrupted and continued"
    return [
        f"`{machine['command']}`, {measured['date']}, commit `{machine['commit']}`. {machine['cpus']} cores"
        f" ({machine['processor']}), {machine['memory_gb']:g} GB, Python {machine['python']}, {shown}; load"
        f" {machine['load_1_min']:.2f} before the start"
        f"{interrupted}. All rounds are in the .json beside this.{slower_text(machine)}",
        "",
    ]


def slower_text(machine: Mapping[str, Any]) -> str:
    """A sentence, behind a space, on what keeps loader `turbo` from its kernel on this machine; "" if nothing does."""
    reason = machine.get("turbo_slower_because", "")
    return f" **Loader `turbo` is {reason}.**" if reason else ""


def memory_text(side: Mapping[str, Any]) -> str:
    """Peak of all processes."""
    return f"{(side['peak_tree_pss'] or side['peak_tree_rss']) / 1e6:,.0f} MB"


def spread_text(spread: Mapping[str, float], unit: str) -> str:
    """ "12.3 s (12.0 … 12.9)", with as many digits as say something."""
    digits = 3 if spread["median"] < 0.1 else 2 if spread["median"] < 10 else 1
    median, lowest, highest = (f"{spread[key]:,.{digits}f}" for key in ("median", "lowest", "highest"))
    space = " " if unit.isalpha() else ""
    return f"{median}{space}{unit}" + (f" ({lowest} … {highest})" if spread["n"] > 1 else "")


def rate_text(s_per_image: Mapping[str, Any], num_decimals: int = 1) -> str:
    """Images a second, with their spread."""
    median, lowest, highest = (f"{1 / s_per_image[key]:,.{num_decimals}f}" for key in ("median", "highest", "lowest"))
    return f"{median} ({lowest} … {highest})" if s_per_image["n"] > 1 else median


def shown(value: float | None, form: str) -> str:
    """A number in that form, and what has none as n/a."""
    return "n/a" if value is None else format(value, form)


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
