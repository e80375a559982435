"""Training runs that take turns, each in a process of its own, and what may be said of their times."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..process import run
from ..rounds import Rounds
from ..side_by_side import Say, Spread, ratio
from ..training.job import Job

SKIPPED = "skipped"
FAILED = "failed"  # beside it: what was tried and failed, and not what cannot be had here
_NOT_YET = "its turn had not come when the time was over"
_ONCE = Path(__file__).parent.parent / "training" / "once.py"


@dataclass(frozen=True)
class Timing:
    """How long each run is timed: `num_windows` windows of `seconds` in each of `num_rounds` processes.

    finished_only  make no run: what is done already is all there is
    """

    num_rounds: int
    num_windows: int
    seconds: float
    timeout_s: float
    finished_only: bool = False


def take_turns(jobs: Mapping[str, Job], timing: Timing, rounds: Rounds, say: Say) -> int:
    """Run all that is not done yet, by name; the next round begins with another. Returns how many runs are missing.

    A run that fails is skipped from then on, with its reason, so that one that cannot run here costs no other its
    figures. Another call tries it again.
    """
    names = list(jobs)
    asked = [(name, number) for number in range(1, timing.num_rounds + 1) for name in _turned(names, number)]
    todo = rounds.missing(asked, say, lambda figures: FAILED not in figures)
    if timing.finished_only:
        return len(todo)
    failed: dict[str, dict[str, Any]] = {}

    def measure(name: str, number: int) -> dict[str, Any]:
        figures = failed.get(name) or _run_or_skip(name, number, jobs, timing, rounds)
        if FAILED in figures:
            failed[name] = figures
        return figures

    rounds.measure_each(todo, timing.num_rounds, measure, _shown, say)
    return 0


def failures(names: Iterable[str], num_rounds: int, done: Mapping[str, Any]) -> dict[str, str]:
    """Of these runs those that were tried and failed, and how."""
    asked = ((name, done.get(f"{name}/{number}", {})) for name in names for number in range(1, num_rounds + 1))
    return {name: told[SKIPPED] for name, told in asked if FAILED in told}


def skipped(name: str, num_rounds: int, done: Mapping[str, Any]) -> str:
    """Why this run was skipped in one of the first `num_rounds` rounds; "" where it was not."""
    reasons = (done.get(f"{name}/{number}", {}).get(SKIPPED, "") for number in range(1, num_rounds + 1))
    return next((reason for reason in reasons if reason), "")


def absent(name: str, num_rounds: int, done: Mapping[str, Any]) -> str:
    """Why there are no figures of this run: it was skipped, or has no finished round; "" where there are."""
    return skipped(name, num_rounds, done) or ("" if f"{name}/1" in done else _NOT_YET)


def spread(name: str, feed: str, num_rounds: int, done: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds an image over all windows of all its finished rounds, and each round's own."""
    asked = (f"{name}/{number}" for number in range(1, num_rounds + 1))
    found = [done[key][feed] for key in asked if key in done]
    windows = [s_per_image for one in found for s_per_image in one["windows"]]
    return {**Spread.of(windows).as_dict(), "rounds": [one["s_per_image"] for one in found]}


def times_as_fast(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """How many times as many images a second ours makes, round by round, of the rounds that both have finished."""
    num_rounds = min(len(theirs["rounds"]), len(ours["rounds"]))
    return ratio(theirs["rounds"][:num_rounds], ours["rounds"][:num_rounds]).as_dict()


def _run_or_skip(name: str, number: int, jobs: Mapping[str, Job], timing: Timing, rounds: Rounds) -> dict[str, Any]:
    """Its figures, or {"skipped": why}: what cannot be had here is not tried in the next round."""
    earlier = {key: told for key, told in rounds.done.items() if key.startswith(f"{name}/") and FAILED not in told}
    reason = skipped(name, number - 1, earlier)
    return {SKIPPED: reason} if reason else _run(jobs[name], timing, rounds.folder)


def _turned(names: Sequence[str], number: int) -> Sequence[str]:
    first = (number - 1) % len(names)
    return [*names[first:], *names[:first]]


def _run(job: Job, timing: Timing, folder: Path) -> dict[str, Any]:
    """Its figures, or {"skipped": why}, with "failed" where it should have run."""
    path = folder / "job.json"
    job.write(path)
    load = os.getloadavg()[0]
    try:
        ran = run([sys.executable, str(_ONCE), str(path)], folder / "last.log", timing.timeout_s)
        figures = ran.told()
    except FeedrateError as error:
        return {SKIPPED: str(error), FAILED: True}
    if "unavailable" in figures:
        return {SKIPPED: figures["unavailable"]}
    return {**figures, "load_1_min": round(load, 2)}


def _shown(name: str, figures: Mapping[str, Any]) -> str:
    if SKIPPED in figures:
        return f"{name}: skipped: {figures[SKIPPED]}"
    feeds = {feed: told for feed, told in figures.items() if isinstance(told, dict)}
    return f"{name}: " + ", ".join(f"{feed} {1 / told['s_per_image']:,.0f} img/s" for feed, told in feeds.items())
