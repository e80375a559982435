"""`bench.py convert-scale`, how packing grows with the number of samples: time, memory and opening, for sets of tiny
images, fitted lines, and the page.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.progress import shown_phase

from . import arguments
from .process import run
from .report import about, measured_and_written, memory_text, row, spread_text
from .rounds import Rounds
from .shards import NUM_DISTINCT, SIDE_PX, write_shards
from .side_by_side import Round, Say, Side, run_round, summarise
from .sides import ours

_SIZES = (100_000, 325_000, 650_000, 1_300_000)
_NUM_OPENED = 5
_SIDE = "feedrate"
# what a line is fitted to, and its unit in the report
FITTED = {"wall_s": "s", "work_s": "s", "peak_parent_rss": "bytes", "peak_tree_pss": "bytes", "open_s": "s"}


@dataclass(frozen=True)
class ScaleSettings:
    """Which numbers of samples, how often."""

    sizes: tuple[int, ...]
    num_rounds: int
    num_workers: int
    timeout_s: float


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    shown = ",".join(map(str, _SIZES))
    command.add_argument("--samples", type=arguments.sizes, default=_SIZES, metavar="N,…", help=f"how many ({shown})")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from .curve import draw  # brings in matplotlib

    settings = ScaleSettings(chosen.samples, chosen.rounds, chosen.workers, chosen.timeout_s)
    return measured_and_written(chosen, "convert_scale", lambda: measure(settings, chosen.work, say), page, draw)


def measure(settings: ScaleSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds the shards meanwhile.

    In each round every size has its turn. In round 0 memory is watched, which costs time, so its times are not used.
    """
    sizes = sorted(settings.sizes)
    with shown_phase("shards of tiny JPEGs", sum(sizes)) as advance:
        shards = write_shards(folder / "shards", sizes, lambda num_samples: advance(num_samples, 0))
    told = {
        "images": f"{NUM_DISTINCT:,} JPEGs of {SIDE_PX} × {SIDE_PX} px, again and again, in WebDataset shards",
        "workers": settings.num_workers,
    }
    rounds = Rounds(folder, told)
    sides = {str(size): _side(shards[size], folder, settings) for size in sizes}
    asked = [(name, number) for number in range(settings.num_rounds + 1) for name in sides]

    def packed(name: str, number: int) -> Round:
        return run_round([sides[name]], folder, settings.timeout_s, number == 0, int(name))

    rounds.measure_each(rounds.missing(asked, say), settings.num_rounds, packed, _shown, say, weight=int)
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return _results(settings, rounds, told)


def _shown(name: str, done: Round) -> str:
    return f"{int(name):,} samples: {done[_SIDE]['wall_s']:,.1f} s"


def _side(shards: Path, folder: Path, settings: ScaleSettings) -> Side:
    """Packing these shards, and after that opening the result in fresh processes."""
    script = str(Path(__file__).with_name("open_once.py"))

    def opened(out: Path) -> dict[str, float]:
        log = folder / "open.log"
        ran = [run([sys.executable, script, str(out)], log, settings.timeout_s) for _ in range(_NUM_OPENED)]
        told = [one.told() for one in ran]
        return {key: statistics.median(one[key] for one in told) for key in ("open_s", "open_rss_bytes")}

    return ours(_SIDE, shards, (), settings.num_workers, opened)


def _results(settings: ScaleSettings, rounds: Rounds, told: dict[str, Any]) -> dict[str, Any]:
    sizes = sorted(settings.sizes)
    points = {}
    for size in sizes:
        timed = [rounds.done[f"{size}/{number}"] for number in range(1, settings.num_rounds + 1)]
        points[size] = summarise(timed, rounds.done[f"{size}/0"], [_SIDE])[_SIDE]
    lines = {}
    for key in FITTED:
        values = [point[key]["median"] if isinstance(point[key], dict) else point[key] for point in points.values()]
        if len(sizes) > 1:
            lines[key] = fit_line(sizes, values)
    return {"settings": told, "points": {str(size): point for size, point in points.items()}, "lines": lines}


def fit_line(sizes: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Least squares: value = intercept + slope × samples, its R², and by how much the worst point is off the line."""
    x, y = np.array(sizes, float), np.array(values, float)
    slope, intercept = np.polyfit(x, y, 1)
    off = y - (intercept + slope * x)
    whole = float(np.sum((y - y.mean()) ** 2))
    return {
        "intercept": float(intercept),
        "slope": float(slope),
        "r_squared": 1 - float(np.sum(off**2)) / whole if whole else 1.0,
        "worst_share": float(np.max(np.abs(off) / np.maximum(np.abs(y), 1e-12))),
    }


def page(measured: Mapping[str, Any], curve_name: str) -> str:
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
