"""Sides of a comparison, run in turns (A B A B …), and what may be said of their times: medians, spreads, ratios."""

import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError
from loaders.records import list_splits, open_records

from .process import run

Say = Callable[[str], None]
Round = dict[str, dict[str, float]]  # by side's name: what was measured of it


@dataclass(frozen=True)
class Side:
    """One of those compared: a command that packs the same images once more.

    command  of the folder it shall write to, which does not exist yet
    told     reads its own times from what it printed of so many samples: "write_s", packing alone, and perhaps
             "work_s", all but starting Python and importing
    startup  where "work_s" is not told: a command that starts Python, imports all the same and does nothing else
    after    measures more of what it wrote, before that is removed
    """

    name: str
    command: Callable[[Path], list[str]]
    told: Callable[[str, int], dict[str, float]]
    startup: Sequence[str] = ()
    after: Callable[[Path], dict[str, float]] = lambda out: {}


@dataclass(frozen=True)
class Spread:
    """Of n measurements."""

    median: float
    lowest: float
    highest: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError where there are no values."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def as_dict(self) -> dict[str, float]:
        """Plain data, for JSON."""
        return asdict(self)


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Theirs over ours, round by round: above 1 we take less. Rounds are pairs, since both met the same machine."""
    return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])


def run_round(sides: Sequence[Side], folder: Path, timeout_s: float, is_watched: bool, num_samples: int) -> Round:
    """Run every side once, in order, and check that each has stored all samples; what they wrote is removed.

    Raises FeedrateError where a side fails or stored another number of samples.
    """
    return {side.name: _run_side(side, folder, timeout_s, is_watched, num_samples) for side in sides}


def _run_side(side: Side, folder: Path, timeout_s: float, is_watched: bool, num_samples: int) -> dict[str, float]:
    out, log = folder / "out", folder / "last.log"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # or this run would wait for the disk on behalf of the one before
    try:
        ran = run(side.command(out), log, timeout_s, is_watched)
        measured = {"wall_s": ran.wall_s, "cpu_s": ran.cpu_s, **side.told(ran.output, num_samples), **_stored(out)}
        if not is_watched:
            measured |= side.after(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if measured["num_samples"] != num_samples:
        raise FeedrateError(f"{side.name} stored {measured['num_samples']:,} of {num_samples:,} samples: see its log")
    if side.startup and not is_watched:
        measured["work_s"] = ran.wall_s - run(side.startup, log, timeout_s).wall_s
    return {**measured, **(ran.peaks.as_dict() if ran.peaks else {})}


def _stored(out: Path) -> dict[str, float]:
    """How many samples and bytes lie there, and the longest side of an image; both formats open alike."""
    num_samples = max_side_px = 0
    path = out if (out / "manifest.json").exists() else next(out.glob("*.beton"))
    for split in list_splits(path):
        records = open_records(path, split)
        num_samples += len(records)
        max_side_px = max(max_side_px, int(records.widths.max()), int(records.heights.max()))
        records.close()
    num_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {"num_samples": num_samples, "stored_bytes": num_bytes, "max_side_px": max_side_px}


def summarise(rounds: Sequence[Round], watched: Round, names: Sequence[str]) -> dict[str, Any]:
    """Of each side, every figure that was measured as a spread with its rounds, and the peaks of the watched round."""
    sides: dict[str, Any] = {}
    for name in names:
        figures = {key: [one[name][key] for one in rounds] for key in rounds[0][name]}
        sides[name] = {key: {**Spread.of(values).as_dict(), "rounds": values} for key, values in figures.items()}
        sides[name] |= {key: value for key, value in watched[name].items() if key.startswith("peak_")}
    return sides


def ratios_to(sides: Mapping[str, Any], theirs: str, ours: str) -> dict[str, dict[str, float]]:
    """How many times as much `theirs` took as `ours`, of sides as `summarise` gives them.

    process       from start to end of the process
    work          without starting Python and importing
    write         without listing the images either: writing alone
    cpu           processor time
    stored_bytes  size of what was written
    peak_memory   of the process tree, shared pages counted once; of one run
    """
    figures = {
        "process": "wall_s",
        "work": "work_s",
        "write": "write_s",
        "cpu": "cpu_s",
        "stored_bytes": "stored_bytes",
    }
    a, b = sides[theirs], sides[ours]
    found = {name: ratio(a[key]["rounds"], b[key]["rounds"]).as_dict() for name, key in figures.items()}
    memory = "peak_tree_pss" if a["peak_tree_pss"] and b["peak_tree_pss"] else "peak_tree_rss"
    if a[memory] and b[memory]:
        found["peak_memory"] = Spread.of([a[memory] / b[memory]]).as_dict()
    return found
