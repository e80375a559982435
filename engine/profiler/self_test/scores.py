"""What the outcomes of the self-test add up to, and whether that keeps what is promised."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import drawn
from ..record import INCONCLUSIVE
from .cells import IN_SLOW_RANK, NOTHING, SLOW_RANK, Outcome

Judgement = Literal["right", "abstained", "wrong"]

RIGHT_SHARE = 0.95  # at least, of cells above the slack
SLOPE_OFF = 0.10  # at most, of recovered against injected delay
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class Tally:
    """Of some cells."""

    right: int = 0
    abstained: int = 0
    wrong: int = 0

    @property
    def total(self) -> int:
        return self.right + self.abstained + self.wrong

    @property
    def right_share(self) -> float | None:
        """None of no cells."""
        return self.right / self.total if self.total else None


@dataclass(frozen=True)
class Line:
    """A straight line by least squares. low, high: the slope's 95 % interval, from drawing points again and again."""

    slope: float
    low: float
    high: float
    intercept: float
    r_squared: float
    num_points: int


@dataclass(frozen=True)
class Promise:
    """Something that is promised. kept: None where no cell tells."""

    text: str
    found: str
    kept: bool | None


@dataclass(frozen=True)
class Scores:
    """Of all cells that were measured undisturbed.

    above, below, at   the slack: of cells of more, less and exactly it;  unchanged  of runs without anything planted
    recovered          delay by the table of stages against what was planted, both µs an image; by kind beside it
    slowed             above the slack: how much longer the loop took, against how much longer it should take
    disturbed, unseen  cells that do not count: others used the processors; the loader does not show the stage
    counted            how many cells count, by loader and seed
    wrong_cells        keys of cells, with what was named
    """

    above: Tally
    below: Tally
    at: Tally
    unchanged: Tally
    recovered: Line | None
    recovered_by_kind: dict[str, Line | None]
    slowed: Line | None
    disturbed: Tally
    unseen: int
    counted: dict[str, int]
    wrong_cells: tuple[tuple[str, str], ...]

    def promises(self) -> list[Promise]:
        """All that the profiler promises, and what was found."""
        share, line = self.above.right_share, self.recovered
        return [
            Promise(
                f"above the slack, the planted stage is named in at least {RIGHT_SHARE:.0%}",
                _of(self.above),
                None if share is None else share >= RIGHT_SHARE,
            ),
            Promise(
                "below the slack, the verdict does not change",
                f"{self.below.wrong} of {self.below.total} changed{_abstained(self.below)}",
                self.below.wrong == 0 if self.below.total else None,
            ),
            Promise(
                "unchanged runs raise no alarm",
                f"{self.unchanged.wrong} of {self.unchanged.total}{_abstained(self.unchanged)}",
                self.unchanged.wrong == 0 if self.unchanged.total else None,
            ),
            Promise(
                f"recovered against injected delay has slope 1.00 ± {SLOPE_OFF:.2f}",
                "too few cells" if line is None else f"{line.slope:.3f} ({line.low:.3f} … {line.high:.3f})",
                None if line is None else abs(line.slope - 1) <= SLOPE_OFF,
            ),
        ]


def label(outcome: Outcome) -> str:
    """What the verdict named, in the words in which cells are planted: a stage, SLOW_RANK, or "inconclusive".

    A slow rank that is not the one, or by another stage, is told with both.
    """
    if outcome.slow_rank is None:
        return outcome.named or INCONCLUSIVE
    if outcome.slow_rank == 1 and outcome.named == IN_SLOW_RANK:
        return SLOW_RANK
    return f"rank {outcome.slow_rank}: {outcome.named}"


def truths(outcome: Outcome) -> set[str]:
    """The labels that are right: at the slack itself both the planted stage and the baseline's."""
    cell, before = outcome.cell, outcome.base_stage or ""
    if cell.planted == NOTHING or cell.size < 1:
        return {before}
    return {cell.planted} if cell.size > 1 else {cell.planted, before}


def judged(outcome: Outcome) -> Judgement:
    """Whether the verdict was right. One that names nothing is never wrong, and at the slack itself it is right."""
    named = label(outcome)
    if named in truths(outcome):
        return "right"
    if named == INCONCLUSIVE:
        return "right" if outcome.cell.size == 1 else "abstained"
    return "wrong"


def counted(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that were measured, undisturbed."""
    return [outcome for outcome in outcomes if not outcome.note and not outcome.is_disturbed]


def score(outcomes: Sequence[Outcome]) -> Scores:
    """Add everything up."""
    kept = counted(outcomes)
    planted = [outcome for outcome in kept if outcome.cell.planted != NOTHING]
    above = [outcome for outcome in planted if outcome.cell.size > 1]
    return Scores(
        _tally(above),
        _tally([outcome for outcome in planted if outcome.cell.size < 1]),
        _tally([outcome for outcome in planted if outcome.cell.size == 1]),
        _tally([outcome for outcome in kept if outcome.cell.planted == NOTHING]),
        _line([recovery(outcome) for outcome in planted]),
        {
            kind: _line([recovery(outcome) for outcome in planted if outcome.cell.kind == kind])
            for kind in sorted({outcome.cell.kind for outcome in planted})
        },
        _line([_slowing(outcome) for outcome in above]),
        _tally([outcome for outcome in outcomes if outcome.is_disturbed and not outcome.note]),
        sum(1 for outcome in outcomes if outcome.note),
        dict(Counter(f"{outcome.cell.loader}, seed {outcome.cell.seed}" for outcome in kept)),
        tuple((outcome.cell.key, label(outcome)) for outcome in kept if judged(outcome) == "wrong"),
    )


def confusion(outcomes: Iterable[Outcome]) -> Counter[tuple[str, str]]:
    """How often what was planted was taken for what."""
    return Counter((outcome.cell.planted, label(outcome)) for outcome in outcomes)


def recovery(outcome: Outcome) -> tuple[float, float]:
    """(injected, recovered) µs an image."""
    return outcome.injected_us or 0.0, (outcome.wall_after_us or 0.0) - (outcome.wall_before_us or 0.0)


def _slowing(outcome: Outcome) -> tuple[float, float]:
    before = outcome.loop_before_us or 0.0
    return (outcome.loop_predicted_us or 0.0) - before, (outcome.loop_after_us or 0.0) - before


def _tally(outcomes: Iterable[Outcome]) -> Tally:
    found = Counter(judged(outcome) for outcome in outcomes)
    return Tally(found["right"], found["abstained"], found["wrong"])


def _line(points: Sequence[tuple[float, float]]) -> Line | None:
    """None through points too few, or all above each other."""
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    if len(x) < _FEWEST_POINTS or np.ptp(x) == 0:
        return None
    slope, intercept = _fit(x, y)
    slopes = [_fit(x[rows], y[rows])[0] for rows in drawn(len(x)) if np.ptp(x[rows]) > 0]
    low, high = np.percentile(slopes, (2.5, 97.5))
    left = y - slope * x - intercept
    spread = float(((y - y.mean()) ** 2).sum())
    r_squared = 1 - float((left**2).sum()) / spread if spread > 0 else 1.0
    return Line(slope, float(low), float(high), intercept, r_squared, len(x))


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    off = x - x.mean()
    slope = float((off * y).sum() / (off**2).sum())
    return slope, float(y.mean() - slope * x.mean())


def _of(tally: Tally) -> str:
    share = tally.right_share
    return f"{tally.right} of {tally.total}" + ("" if share is None else f", {share:.1%}") + _abstained(tally)


def _abstained(tally: Tally) -> str:
    return f"; {tally.abstained} named nothing" if tally.abstained else ""
