"""Loading beside others: the rounds, and what they give."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..images import find_photos
from ..machine import DALI_PACKAGES, version_of
from ..process import run
from ..rounds import Rounds
from ..side_by_side import Say, Spread, ratio
from .cases import CASES, Case
from .data import Stored, store
from .job import Job
from .sides import SIDES

_WARM_S = 0.5
_PACKAGES = ("ffcv", "dali", "torchvision", "pillow", "timm", "webdataset", "spdl")
_PACKAGES_OF = {"dali": DALI_PACKAGES}  # where they are not called as what they hold
_SPREADS = ("s_per_image", "cpu_s_per_image", "first_batch_s")
_SKIPPED = "skipped"


@dataclass(frozen=True)
class LoadSettings:
    """What to compare, on what, how often. `source` None: real photos where there are some, else generated ones.

    sides    None: those of each case
    seconds  of each timed window
    """

    cases: tuple[str, ...]
    sides: tuple[str, ...] | None
    source: Path | None
    repeat: int
    num_rounds: int
    num_workers: int
    batch_size: int
    seconds: float
    timeout_s: float


def measure(settings: LoadSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all rounds that are not done yet; `folder` holds what is needed meanwhile.

    Round 0 of each case tells who can take part and has its memory watched, which costs time, so its times are not
    used.
    """
    source = settings.source or find_photos(folder, say)
    chosen = {name: chosen_sides(name, settings.sides) for name in settings.cases}
    told = {
        "images": f"{source.name} × {settings.repeat}",
        "workers": settings.num_workers,
        "batch_size": settings.batch_size,
        "seconds": settings.seconds,
        "packages": {name: version_of(*_PACKAGES_OF.get(name, (name,))) for name in _PACKAGES},
    }
    rounds = Rounds(folder, {**told, "source": str(source.resolve())})
    stored = {name: store(name, CASES[name], source, settings.repeat, folder, say) for name in settings.cases}
    runner = _Runner(settings, rounds, stored, say)
    runner.run_all(chosen)
    told |= {"rounds": settings.num_rounds, "in_one_go": not rounds.were_begun}
    return {"settings": told, "cases": {name: result(name, settings, rounds.done, stored[name]) for name in chosen}}


def chosen_sides(name: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The sides of a case, of those asked for. Raises FeedrateError where none can take part."""
    case = CASES[name]
    if asked is None:
        return case.sides
    sides = tuple(side for side in asked if SIDES[side].reads in case.offers and SIDES[side].view in ("", case.source))
    if not sides:
        raise FeedrateError(
            f"none of {', '.join(asked)} reads what case '{name}' stores, {case.source} as {' or '.join(case.offers)}"
        )
    return sides


class _Runner:
    """Runs one side after the other, round after round."""

    def __init__(self, settings: LoadSettings, rounds: Rounds, stored: Mapping[str, Stored], say: Say) -> None:
        self._settings, self._rounds, self._stored, self._say = settings, rounds, stored, say

    def run_all(self, chosen: Mapping[str, tuple[str, ...]]) -> None:
        """All rounds of all cases; a case is finished before the next begins."""
        asked = [(name, number) for name in chosen for number in range(self._settings.num_rounds + 1)]
        todo = self._rounds.missing(asked, self._say)
        measure = lambda name, number: self._round(name, number, chosen[name])  # noqa: E731
        self._rounds.measure_each(todo, self._settings.num_rounds, measure, _shown, self._say)

    def _round(self, name: str, number: int, sides: Sequence[str]) -> dict[str, Any]:
        load = os.getloadavg()[0]
        skipped = {} if number == 0 else self._rounds.done[f"{name}/0"]["sides"]
        here = [side for side in sides if _SKIPPED not in skipped.get(side, {})]
        return {"load_1_min": round(load, 2), "sides": {side: self._side(name, number, side) for side in here}}

    def _side(self, name: str, number: int, side: str) -> dict[str, Any]:
        """Its figures; in round 0 {"skipped": why} instead where it cannot take part."""
        path = self._rounds.folder / "job.json"
        self._job(name, number, side).write(path)
        script = str(Path(__file__).with_name("once.py"))
        log = self._rounds.folder / "last.log"
        try:
            ran = run([sys.executable, script, str(path)], log, self._settings.timeout_s, number == 0)
            figures = ran.told()
            if "unavailable" in figures:
                raise FeedrateError(figures["unavailable"])
        except FeedrateError as error:
            if number:
                raise
            reason = f"{error}: {SIDES[side].remedy}" if SIDES[side].remedy else str(error)
            self._say(f"{name}: {side} is skipped: {reason}")
            return {_SKIPPED: reason}
        return {**figures, **(ran.peaks.as_dict() if ran.peaks else {})}

    def _job(self, name: str, number: int, side: str) -> Job:
        case, stored = CASES[name], self._stored[name]
        batch_size = case.batch_size or self._settings.batch_size
        return Job(
            side=side,
            data=stored.data,
            view=case.source,
            size_px=case.size_px,
            batch_size=batch_size,
            num_workers=self._settings.num_workers,
            seconds=self._settings.seconds,
            warm_s=min(_WARM_S, self._settings.seconds),
            seed=number,
            epoch_batches=stored.num_samples // batch_size if case.is_cold else 0,
        )


def result(name: str, settings: LoadSettings, done: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """One case as plain data: of each side its spreads and peaks, and ratios of ours to peers of the same output."""
    case: Case = CASES[name]
    watched = done[f"{name}/0"]["sides"]
    timed = [done[f"{name}/{number}"] for number in range(1, settings.num_rounds + 1)]
    sides: dict[str, Any] = {}
    for side, peaks in watched.items():
        if _SKIPPED in peaks:
            continue
        figures = {key: [one["sides"][side][key] for one in timed] for key in _SPREADS}
        sides[side] = {key: {**Spread.of(values).as_dict(), "rounds": values} for key, values in figures.items()}
        sides[side] |= {key: value for key, value in peaks.items() if key.startswith("peak_")}
        known = SIDES[side]
        sides[side] |= {"title": known.title, "output": known.output, "reads": known.reads, "is_ours": known.is_ours}
    return {
        "title": case.title,
        "options": list(case.convert),
        "batch_size": case.batch_size or settings.batch_size,
        "num_samples": stored.num_samples,
        "bytes_per_sample": {form: round(mean) for form, mean in stored.bytes_per_sample.items()},
        "is_cold": case.is_cold,
        "load_1_min": [one["load_1_min"] for one in timed],
        "sides": sides,
        "skipped": {side: peaks[_SKIPPED] for side, peaks in watched.items() if _SKIPPED in peaks},
        "references": {output: list(pair) for output, pair in case.references.items()},
        "speedups": {side: _speedups(side, sides) for side in sides if sides[side]["is_ours"]},
    }


def _speedups(ours: str, sides: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as many images a second as each other side of the same output: their time over ours, by rounds."""
    mine = sides[ours]
    return {
        name: ratio(side["s_per_image"]["rounds"], mine["s_per_image"]["rounds"]).as_dict()
        for name, side in sides.items()
        if name != ours and side["output"] == mine["output"]
    }


def _shown(name: str, done: Mapping[str, Any]) -> str:
    sides = {side: figures for side, figures in done["sides"].items() if _SKIPPED not in figures}
    return (
        f"{name}: "
        + ", ".join(f"{side} {1 / figures['s_per_image']:,.0f}" for side, figures in sides.items())
        + " img/s"
    )
