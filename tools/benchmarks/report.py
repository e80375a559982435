"""What was measured, written for people (Markdown) and for programs (JSON)."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError

from .convert_scale import FITTED
from .rounds import remove, working_folder

_COLUMNS = ("process", "without imports", "writing alone", "processor time", "img/s", "stored", "peak memory")
_TIMES = ("wall_s", "work_s", "write_s", "cpu_s")
_RATIOS = ("process", "work", "write", "cpu", None, "stored_bytes", "peak_memory")  # under the columns


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


def measured_and_written(
    chosen: argparse.Namespace,
    name: str,
    measure: Callable[[], dict[str, Any]],
    head: Mapping[str, Any],
    page: Callable[[Mapping[str, Any]], str],
) -> dict[str, Path]:
    """What most commands do: measure in the working folder, which is then removed, and write a page and all figures.

    Returns both files. Raises FeedrateError, before anything is measured, where they cannot be written; and when all is
    written, where `measured["failed"]` has runs that failed, by their names: the same command then tries those again,
    given --overwrite.
    """
    paths = free_paths(chosen.report, name, ["json", "md"], chosen.overwrite)
    with working_folder(chosen.work):
        measured = {**head, **measure()}
        write_json(paths["json"], measured)
        write_text(paths["md"], page(measured))
        failed = measured.get("failed", {})
        if not (getattr(chosen, "keep_work", False) or getattr(chosen, "finished_only", False) or failed):
            remove(chosen.work)
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise FeedrateError(
            f"{paths['md']} is written, without what failed ({told}): the same command with --overwrite tries it again"
        )
    return paths


def convert_page(measured: Mapping[str, Any]) -> str:
    """The page of `bench.py convert`."""
    settings = measured["settings"]
    lines = [
        "# Packing beside FFCV's writer",
        "",
        *about(measured),
        f"Packed: {settings['images']} ({settings['num_samples']:,} samples), {settings['workers']} workers each, from"
        f" a warm page cache. FFCV's writer: {settings['ffcv']}. The sides took turns; rounds: {settings['rounds']}"
        " (median, lowest … highest). Memory is the sum over all processes, shared pages counted once, of a round"
        " of its own that was not timed. “Without imports” still lists the images, “writing alone” does not; ours then"
        " still holds estimating the space needed, statistics of pixels, checksums and syncing the disk, none of"
        " which FFCV does.",
    ]
    for case in measured["cases"].values():
        lines += ["", f"## {case['title']}", "", *_case_table(case, settings["num_samples"]), ""]
        lines += [f"`{side}`: `{' '.join(words) or 'its defaults'}`  " for side, words in case["options"].items()]
    return "\n".join(lines) + "\n"


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


def _case_table(case: Mapping[str, Any], num_samples: int) -> Iterable[str]:
    yield row("", *_COLUMNS)
    yield row(*["---"] * (len(_COLUMNS) + 1))
    for name, side in case["sides"].items():
        times = [spread_text(side[key], "s") for key in _TIMES]
        rate = f"{num_samples / side['wall_s']['median']:,.0f}"
        yield row(name, *times, rate, f"{side['stored_bytes']['median'] / 1e6:,.1f} MB", memory_text(side))
    for name, ratios in case["ratios"].items():
        cells = [spread_text(ratios[key], "×") if key in ratios else "" for key in _RATIOS]
        yield row(f"ffcv ÷ {name}", *cells)


def scale_page(measured: Mapping[str, Any], curve_name: str) -> str:
    """The page of `bench.py convert-scale`."""
    settings = measured["settings"]
    lines = [
        "# Packing as the number of samples grows",
        "",
        *about(measured),
        f"Packed to `.beton`: {settings['images']}, {settings['workers']} workers, from a warm page cache. The sizes"
        f" took turns; rounds: {settings['rounds']} (median, lowest … highest). Memory is of one more round that was"
        " not timed. Opening: `open_records` in a fresh process, each round the median of five.",
        "",
        f"![time and memory against the number of samples]({curve_name})",
        "",
        row(
            "samples", "process", "without imports", "img/s", "parent's memory", "all processes'", "opening", "it holds"
        ),
        row(*["---"] * 8),
    ]
    for size, point in measured["points"].items():
        lines.append(
            row(
                f"{int(size):,}",
                spread_text(point["wall_s"], "s"),
                spread_text(point["work_s"], "s"),
                f"{int(size) / point['wall_s']['median']:,.0f}",
                f"{point['peak_parent_rss'] / 1e6:,.0f} MB",
                memory_text(point),
                spread_text(point["open_s"], "s"),
                f"{point['open_rss_bytes']['median'] / 1e6:,.0f} MB",
            )
        )
    if measured["lines"]:
        lines += ["", *_lines_table(measured["lines"])]
    return "\n".join(lines) + "\n"


def _lines_table(lines: Mapping[str, Mapping[str, float]]) -> Iterable[str]:
    """The straight lines: their start, what a sample adds, and how straight the measurements are."""
    names = {
        "wall_s": "process",
        "work_s": "without imports",
        "peak_parent_rss": "parent's memory",
        "peak_tree_pss": "all processes' memory",
        "open_s": "opening",
    }
    yield row("fitted line", "at no samples", "a million samples more", "R²", "worst point off by")
    yield row(*["---"] * 5)
    for key, unit in FITTED.items():
        line = lines[key]
        scale, shown = (1e6, "MB") if unit == "bytes" else (1, unit)
        yield row(
            names[key],
            f"{line['intercept'] / scale:,.3g} {shown}",
            f"{line['slope'] * 1e6 / scale:,.4g} {shown}",
            f"{line['r_squared']:.4f}",
            f"{line['worst_share']:.1%}",
        )


def memory_text(side: Mapping[str, Any]) -> str:
    """Peak of all processes."""
    return f"{(side['peak_tree_pss'] or side['peak_tree_rss']) / 1e6:,.0f} MB"


def spread_text(spread: Mapping[str, float], unit: str) -> str:
    """ "12.3 s (12.0 … 12.9)", with as many digits as say something."""
    digits = 3 if spread["median"] < 0.1 else 2 if spread["median"] < 10 else 1
    median, lowest, highest = (f"{spread[key]:,.{digits}f}" for key in ("median", "lowest", "highest"))
    space = " " if unit.isalpha() else ""
    return f"{median}{space}{unit}" + (f" ({lowest} … {highest})" if spread["n"] > 1 else "")


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
