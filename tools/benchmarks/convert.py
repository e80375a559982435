"""`bench.py convert`, packing beside FFCV's writer: what is compared, the rounds, and the page."""

import argparse
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import arguments
from .images import find_photos, repeated
from .report import about, measured_and_written, memory_text, row, spread_text
from .rounds import Rounds
from .side_by_side import Round, Say, Side, ratios_to, run_round, summarise
from .sides import ffcv, ours

_COLUMNS = ("process", "without imports", "writing alone", "processor time", "img/s", "stored", "peak memory")
_TIMES = ("wall_s", "work_s", "write_s", "cpu_s")
_RATIOS = ("process", "work", "write", "cpu", None, "stored_bytes", "peak_memory")  # under the columns


@dataclass(frozen=True)
class Case:
    """One comparison: options of FFCV's writer, and of ours by the side's name."""

    title: str
    ffcv: tuple[str, ...]
    ours: Mapping[str, tuple[str, ...]]


CASES = {
    "jpg256": Case(
        "Encoded anew: 256 px on the longer side, JPEG quality 90",
        ("--write-mode", "jpg", "--max-resolution", "256", "--quality", "90"),
        {"feedrate": ("--write-mode", "jpg", "--max-side", "256", "--quality", "90")},
    ),
    "raw256": Case(
        "Raw pixels: 256 px on the longer side",
        ("--write-mode", "raw", "--max-resolution", "256"),
        {"feedrate": ("--write-mode", "raw", "--max-side", "256")},
    ),
    "original": Case(
        "Full size: we keep the bytes, FFCV can only encode anew (quality 90)",
        ("--write-mode", "jpg", "--quality", "90"),
        {
            "feedrate": (),
            "feedrate, no seek points": ("--no-seek-points",),
            "feedrate, structure": ("--check", "structure"),
        },
    ),
}


@dataclass(frozen=True)
class ConvertSettings:
    """What to compare, on what, how often. `source` None: real photos where there are some, else generated ones."""

    source: Path | None
    repeat: int
    num_rounds: int
    num_workers: int
    cases: tuple[str, ...]
    timeout_s: float


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=arguments.positive, default=10, metavar="K", help="use each photo K times (10)")
    add("--cases", type=arguments.names(CASES), default=tuple(CASES), metavar="NAME,…", help="(all)")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    settings = ConvertSettings(
        chosen.source, chosen.repeat, chosen.rounds, chosen.workers, chosen.cases, chosen.timeout_s
    )
    return measured_and_written(chosen, "convert", lambda: measure(settings, chosen.work, say), page)


def measure(settings: ConvertSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds what is needed meanwhile.

    Round 0 of each case fills the caches and has its memory watched, which costs time, so its times are not used.
    """
    source = settings.source or find_photos(folder, say)
    images = folder / "images"
    num_samples = repeated(source, settings.repeat, images)
    say(f"{num_samples:,} images: the JPEGs of {source.name} × {settings.repeat}")
    with_ffcv = importlib.util.find_spec("ffcv") is not None
    if not with_ffcv:
        say("FFCV is not installed (make setup says why): its side is skipped, and there are no ratios")
    told = {
        "images": f"{num_samples // settings.repeat:,} JPEGs of {source.name} × {settings.repeat}",
        "num_samples": num_samples,
        "workers": settings.num_workers,
        "ffcv": "installed" if with_ffcv else "skipped: it is not installed",
    }
    rounds = Rounds(folder, {**told, "source": str(source.resolve())})
    _run_rounds(settings, _sides(settings, images, with_ffcv), rounds, num_samples, say)
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return {"settings": told, "cases": _results(settings, rounds)}


def _sides(settings: ConvertSettings, images: Path, with_ffcv: bool) -> dict[str, list[Side]]:
    sides: dict[str, list[Side]] = {}
    for name in settings.cases:
        case = CASES[name]
        theirs = [ffcv(images / "train", case.ffcv, settings.num_workers)] if with_ffcv else []
        sides[name] = theirs + [
            ours(side, images, options, settings.num_workers) for side, options in case.ours.items()
        ]
    return sides


def _run_rounds(
    settings: ConvertSettings, sides: Mapping[str, list[Side]], rounds: Rounds, num_samples: int, say: Say
) -> None:
    asked = [(name, number) for number in range(settings.num_rounds + 1) for name in settings.cases]

    def measure(name: str, number: int) -> Round:
        return run_round(sides[name], rounds.folder, settings.timeout_s, number == 0, num_samples)

    rounds.measure_each(rounds.missing(asked, say), settings.num_rounds, measure, _shown, say)


def _shown(name: str, done: Round) -> str:
    return f"{name}: " + ", ".join(f"{side} {measured['wall_s']:,.1f} s" for side, measured in done.items())


def _results(settings: ConvertSettings, rounds: Rounds) -> dict[str, Any]:
    results = {}
    for name in settings.cases:
        watched = rounds.done[f"{name}/0"]
        timed = [rounds.done[f"{name}/{number}"] for number in range(1, settings.num_rounds + 1)]
        sides = summarise(timed, watched, list(watched))
        case = CASES[name]
        results[name] = {
            "title": case.title,
            "options": {"ffcv": list(case.ffcv), **{side: list(options) for side, options in case.ours.items()}},
            "sides": sides,
            "ratios": {side: ratios_to(sides, "ffcv", side) for side in case.ours} if "ffcv" in sides else {},
        }
    return results


def page(measured: Mapping[str, Any]) -> str:
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
