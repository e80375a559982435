"""Training beside others: the rounds, and what they give."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..images import find_photos, repeated
from ..machine import version_of
from ..process import REPOSITORY, run
from ..rounds import Rounds
from ..side_by_side import Say, Spread, ratio
from .job import Job
from .sides import CASES, FEEDS, MODEL, OURS, SIDES

_SKIPPED = "skipped"
_WARM_S = 1.0


@dataclass(frozen=True)
class TrainSettings:
    """What to compare, on what, how often. `source` None: real photos where there are some, else generated ones.

    batch_size  0: each case's own
    seconds     of each timed window
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...]
    source: Path | None
    repeat: int
    num_rounds: int
    num_threads: int
    num_workers: int
    batch_size: int
    device: str
    channels_last: bool
    seconds: float
    timeout_s: float


def measure(settings: TrainSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds what is needed meanwhile."""
    source = settings.source or find_photos(folder, say)
    told = {
        "model": MODEL,
        "images": f"{source.name} × {settings.repeat}",
        "device": settings.device,
        "layout": "channels-last" if settings.channels_last else "contiguous",
        "threads": settings.num_threads,
        "workers": settings.num_workers,
        "seconds": settings.seconds,
        "batch_sizes": {name: settings.batch_size or CASES[name].batch_size for name in settings.cases},
        "packages": {"timm": version_of("timm")},
    }
    rounds = Rounds(folder, {**told, "sides": settings.sides, "source": str(source.resolve())})
    _store(settings, source, folder, say)
    _run_rounds(settings, rounds, say)
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return {
        "settings": told,
        "sides": {
            side: {"title": SIDES[side].title, "version": version_of(SIDES[side].package)} for side in settings.sides
        },
        "cases": {name: result(name, settings, rounds.done) for name in settings.cases},
    }


def _store(settings: TrainSettings, source: Path, folder: Path, say: Say) -> None:
    """The photos as files, and the same packed; all of it in the page cache."""
    images, packed = folder / "images", folder / "packed"
    largest = max(settings.batch_size or CASES[name].batch_size for name in settings.cases)
    num_images = repeated(source, settings.repeat, images)
    if num_images < largest:
        raise FeedrateError(f"{source} × {settings.repeat} is {num_images} images, less than a batch of {largest}")
    say(f"packing {num_images:,} images as they are")
    convert = [sys.executable, str(REPOSITORY / "tools" / "convert.py"), "folder", "--source", str(images)]
    run([*convert, "--out", str(packed), "--to", "beton", "--overwrite"], folder / "convert.log", settings.timeout_s)
    for path in packed.rglob("*"):
        if path.is_file():
            path.read_bytes()


def _run_rounds(settings: TrainSettings, rounds: Rounds, say: Say) -> None:
    """Round after round of all cases, in which the sides take turns; the next round begins with another side."""
    asked = [(name, number) for number in range(1, settings.num_rounds + 1) for name in settings.cases]
    todo = rounds.missing(asked, say)
    rounds.measure_each(
        todo, settings.num_rounds, lambda name, number: _round(settings, rounds, number, name, say), _shown, say
    )


def _round(settings: TrainSettings, rounds: Rounds, number: int, name: str, say: Say) -> dict[str, Any]:
    load = os.getloadavg()[0]
    first = rounds.done.get(f"{name}/1", {"sides": {}})["sides"]
    here = [side for side in settings.sides if _SKIPPED not in first.get(side, {})]
    turned = here[(number - 1) % len(here) :] + here[: (number - 1) % len(here)]
    sides = {side: _side(settings, rounds.folder, side, name, number, say) for side in turned}
    return {"load_1_min": round(load, 2), "sides": sides}


def _side(settings: TrainSettings, folder: Path, side: str, name: str, number: int, say: Say) -> dict[str, Any]:
    """Its figures; in the first round {"skipped": why} instead where it cannot take part. Ours always must."""
    path, script = folder / "job.json", str(Path(__file__).with_name("once.py"))
    _job(settings, folder, side, name).write(path)
    try:
        ran = run([sys.executable, script, str(path)], folder / "last.log", settings.timeout_s)
        figures = ran.told()
        if "unavailable" in figures:
            raise FeedrateError(figures["unavailable"])
    except FeedrateError as error:
        if number > 1 or side == OURS:
            raise
        reason = f"{error}: {SIDES[side].remedy}" if SIDES[side].remedy else str(error)
        say(f"{name}: {side} is skipped: {reason}")
        return {_SKIPPED: reason}
    return figures


def _job(settings: TrainSettings, folder: Path, side: str, name: str) -> Job:
    case = CASES[name]
    return Job(
        side=side,
        images=str(folder / "images" / "train"),
        packed=str(folder / "packed"),
        folder=str(folder / "run"),
        size_px=case.size_px,
        batch_size=settings.batch_size or case.batch_size,
        precision=case.precision,
        channels_last=settings.channels_last,
        device=settings.device,
        num_threads=settings.num_threads,
        num_workers=settings.num_workers,
        seconds=settings.seconds,
        warm_s=min(_WARM_S, settings.seconds),
    )


def result(name: str, settings: TrainSettings, done: Mapping[str, Any]) -> dict[str, Any]:
    """One case as plain data: of each feed the sides' spreads, and how many times as many images a second ours trains.

    Raises FeedrateError where the sides did not train the same model: their times would say nothing.
    """
    rounds = [done[f"{name}/{number}"] for number in range(1, settings.num_rounds + 1)]
    first = rounds[0]["sides"]
    here = [side for side in settings.sides if _SKIPPED not in first[side]]
    sizes = {side: first[side]["num_parameters"] for side in here}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{side} {size:,}" for side, size in sizes.items())
        raise FeedrateError(f"the sides train different models (parameters: {shown}): they cannot be compared")
    feeds: dict[str, Any] = {}
    for feed in FEEDS:
        times = {side: [one["sides"][side][feed]["s_per_image"] for one in rounds] for side in here}
        feeds[feed] = {
            "sides": {side: {**Spread.of(values).as_dict(), "rounds": values} for side, values in times.items()},
            "ratios": {side: ratio(times[side], times[OURS]).as_dict() for side in here if side != OURS},
        }
    return {
        "title": CASES[name].title if not settings.batch_size else f"{name}, batches of {settings.batch_size}",
        "load_1_min": [one["load_1_min"] for one in rounds],
        "num_parameters": sizes[OURS],
        "peak_rss_bytes": {side: max(one["sides"][side]["peak_rss_bytes"] for one in rounds) for side in here},
        "feeds": feeds,
        "skipped": {side: found[_SKIPPED] for side, found in first.items() if _SKIPPED in found},
    }


def _shown(name: str, done: Mapping[str, Any]) -> str:
    return f"{name}: " + "; ".join(
        f"{side} " + " and ".join(f"{1 / figures[feed]['s_per_image']:,.0f}" for feed in FEEDS) + " img/s"
        for side, figures in done["sides"].items()
        if _SKIPPED not in figures
    )
