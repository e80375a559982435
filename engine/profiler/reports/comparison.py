"""Two profiles of the same data and model side by side: what became slower beyond noise, and in which stage."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loaders.errors import FeedrateError

from ...nesting import flat
from ..bootstrap import redrawn_medians
from ..number_text import NOT_SEEN, plain, rate_text, share_text, time_text
from ..record import ROWS, Profile, Rate
from ..record_json import read_profile
from .report_rows import seen

FEWEST_ROUNDS = 3  # with three each, all of one below all of the other happens by chance in one case of twenty
_DRAWS = 4000
_RATES = {
    "step": "step alone",
    "fed": "step fed by the host",
    "loader": "loader",
    "cold": "cold loader",
    "loop": "the loop",
    "loop_cold": "cold loop",
}
_MACHINE = ("platform", "cpus", "gpus")


@dataclass(frozen=True)
class Ratio:
    """B's number / A's, by medians, and its 95 % interval; no interval where a side has too few rounds for one."""

    value: float
    low: float | None
    high: float | None

    @property
    def differs(self) -> bool:
        """Whether 1 lies outside of the interval."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    def slower_than(self, share: float) -> bool:
        """Whether even the upper end of the interval is lower than 1 - `share`."""
        return self.high is not None and self.high < 1 - share


@dataclass(frozen=True)
class RateRow:
    """One ceiling of both; `ratio` is None where a side lacks it."""

    label: str
    a: Rate | None
    b: Rate | None
    ratio: Ratio | None


@dataclass(frozen=True)
class StageRow:
    """One stage of both: what it takes of the loop's time, and itself, in microseconds an image.

    `wall_ratio` is B's wall time / A's, None where a side lacks rounds of it.
    """

    name: str
    loop_us: tuple[float | None, float | None]
    wall_us: tuple[float | None, float | None]
    cpu_us: tuple[float | None, float | None]
    wall_ratio: Ratio | None

    @property
    def difference_us(self) -> float | None:
        """More (above 0) or less of the loop's time in B."""
        a, b = self.loop_us
        return None if a is None or b is None else b - a


@dataclass(frozen=True)
class Comparison:
    """`settings` are those that differ, the decisive ones first: name, A's and B's value."""

    rates: tuple[RateRow, ...]
    stages: tuple[StageRow, ...]
    settings: tuple[tuple[str, str, str], ...]
    loop: Ratio
    sentence: str


def read_report(path: Path) -> Profile:
    """The profile of a report.json or of a run's folder. Raises FeedrateError where there is none to compare."""
    tried = [path] if not path.is_dir() else [path / "profile" / "report.json", path / "report.json"]
    file = next((candidate for candidate in tried if candidate.exists()), None)
    if file is None:
        places = " and ".join(str(candidate) for candidate in tried)
        raise FeedrateError(f"{path} holds no profile (looked for {places}): name a report.json or a run's folder")
    profile = read_profile(file)
    for name in _RATES:
        rate = _rate(profile, name)
        if rate is not None and not (rate.rounds and min(rate.rounds) > 0):
            raise FeedrateError(f"{file}: the rounds of '{name}' are {rate.rounds}, not rates above 0; profile anew")
    return profile


def refuse_unlike(a: Profile, b: Profile) -> None:
    """Raise FeedrateError where the two profiled other data or another model: their rates say nothing then."""
    for name, of_a, of_b in zip(("data", "split", "images", "image size", "model"), _what(a), _what(b), strict=True):
        if of_a != of_b:
            raise FeedrateError(
                f"A and B differ in {name} ({plain(str(of_a))} and {plain(str(of_b))}), so their rates cannot be"
                " compared: take two profiles of the same data and model, or say --allow-different"
            )


def refuse_to_judge(a: Profile, b: Profile) -> None:
    """Raise FeedrateError where the two ran on other hardware: that the one is slower is no fault of the other then."""
    for name, of_a, of_b in _differing(_ran_on(a), _ran_on(b)):
        raise FeedrateError(
            f"--fail-if-slower cannot judge A and B, which differ in {name} ({of_a} and {of_b}): take two profiles that"
            " ran alike, or say --allow-different"
        )


def compare(a: Profile, b: Profile) -> Comparison:
    """Everything both have, side by side."""
    rates = []
    for name, label in _RATES.items():
        of_a, of_b = _rate(a, name), _rate(b, name)
        if of_a is not None or of_b is not None:
            rates.append(
                RateRow(label, of_a, of_b, None if of_a is None or of_b is None else ratio(of_a.rounds, of_b.rounds))
            )
    stages = _stage_rows(a, b)
    settings = [row for told in (_ran_on, _settings, _machine) for row in _differing(told(a), told(b))]
    loop = ratio(a.ceilings.loop.rounds, b.ceilings.loop.rounds)
    return Comparison(tuple(rates), stages, tuple(settings), loop, _sentence(a, b, loop, stages))


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """B / A of rounds, its interval by drawing the rounds of each again and again; the same for the same rounds."""
    value = statistics.median(b) / statistics.median(a)
    if min(len(a), len(b)) < FEWEST_ROUNDS:
        return Ratio(value, None, None)
    generator = np.random.default_rng(0)
    of_a, of_b = (redrawn_medians(rounds, _DRAWS, generator) for rounds in (a, b))
    low, high = np.percentile(of_b / of_a, (2.5, 97.5))
    return Ratio(value, float(low), float(high))


def _what(profile: Profile) -> tuple[object, ...]:
    subject = profile.subject
    data = Path(subject.path).name.removesuffix("-packed")  # the same images wherever they lie, packed or not
    return data, subject.split, subject.num_samples, subject.size_px, subject.model


def _rate(profile: Profile, name: str) -> Rate | None:
    if name == "loader":
        return profile.ceilings.loader.get(profile.subject.workers)
    rate: Rate | None = getattr(profile.ceilings, name)
    return rate


def _stage_rows(a: Profile, b: Profile) -> tuple[StageRow, ...]:
    """Stages that a side has seen. The loop's time an image is what its rate says, parted by the stages' shares."""
    sides = []
    for profile in (a, b):
        loop_us = 1e6 / profile.ceilings.loop.median
        known = {stage.name: stage for stage in seen(profile.shown_rank.stages)}
        sides.append((loop_us, known))
    names = [name for name in ROWS if any(name in known for _, known in sides)]
    rows = []
    for name in names:
        found = [known.get(name) for _, known in sides]
        shares = [None if stage is None else stage.critical_share for stage in found]
        times = [None if share is None else share * loop_us for share, (loop_us, _) in zip(shares, sides, strict=True)]
        walls, cpus = ([getattr(stage, field, None) for stage in found] for field in ("wall_us", "cpu_us"))
        rounds = [() if stage is None else stage.rounds_us for stage in found]
        known_well = all(rounds) and min(map(min, rounds)) > 0
        wall_ratio = ratio(*rounds) if known_well else None
        rows.append(StageRow(name, (times[0], times[1]), (walls[0], walls[1]), (cpus[0], cpus[1]), wall_ratio))
    return tuple(rows)


def _sentence(a: Profile, b: Profile, loop: Ratio, stages: tuple[StageRow, ...]) -> str:
    rates = f"{rate_text(a.ceilings.loop.median)} img/s in A, {rate_text(b.ceilings.loop.median)} in B"
    if loop.low is None or loop.high is None:
        return f"The loop: {rates}; with fewer than {FEWEST_ROUNDS} rounds a side nobody can tell that from noise."
    interval = f"B ÷ A {loop.value:.3f}, 95% interval {loop.low:.3f} … {loop.high:.3f}"
    if not loop.differs:
        return f"No difference beyond noise: the loop makes {rates} ({interval})."
    word = "slower" if loop.value < 1 else "faster"
    changed = _most_changed(loop, stages)
    return f"B's loop is {share_text(abs(1 - loop.value))} {word}: {rates} ({interval}){changed}."


def _most_changed(loop: Ratio, stages: tuple[StageRow, ...]) -> str:
    """The stage that has most to do with it, where shares tell."""
    known = [(row.difference_us, row.name) for row in stages if row.difference_us is not None]
    if not known:
        return f"; which stage that is, shares that are {NOT_SEEN} cannot tell"
    sign = 1 if loop.value < 1 else -1
    most, name = max(known, key=lambda pair: sign * pair[0])
    total = sum(difference for difference, _ in known)
    more = "more" if sign > 0 else "less"
    return f"; of {time_text(abs(total))} {more} an image, {name} has {time_text(sign * most)}"


def _ran_on(profile: Profile) -> dict[str, Any]:
    """What decides before any setting does."""
    return {"ranks": profile.subject.world_size, "device": profile.subject.device}


def _settings(profile: Profile) -> dict[str, Any]:
    """As they were measured, so what "auto" and 0 stood for, and what of the set its packing decides."""
    subject, asked = profile.subject, flat(profile.config)
    measured = {
        "loader": subject.loader,
        "data.workers": subject.workers,
        "data.resize": subject.resize,
        "execution.device": None,  # told by `_ran_on`
        "set's images": subject.num_samples,
        "set's stored bytes": subject.stored_bytes,
        "set fits in memory": subject.fits_in_memory or asked.get("data.page_cache") == "memory",
    }
    return {name: value for name, value in (asked | measured).items() if value is not None}


def _machine(profile: Profile) -> dict[str, Any]:
    return {f"machine's {name}": profile.environment.get(name) for name in _MACHINE}


def _differing(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    flat_a, flat_b = flat(a), flat(b)
    for name in sorted(flat_a.keys() | flat_b.keys()):
        values = tuple(plain(str(side.get(name, NOT_SEEN))) for side in (flat_a, flat_b))
        if values[0] != values[1]:
            yield plain(name), values[0], values[1]
