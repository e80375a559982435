"""What the self-test plants: one delay, in one stage, of one size, with one loader and seed; and what came of it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from loaders.stage_writer import Delay

Kind = Literal["sleep", "spin"]
# which side limits before anything is planted
Baseline = Literal["step", "loader"]

SLOW_RANK = "slow rank"
NOTHING = "nothing"
IN_LOADER = ("read", "decode", "augment", "collate")
IN_STEP = ("forward", "backward", "optimizer")
IN_SLOW_RANK = "optimizer"  # another than carries the baseline's own delay
PLANTED = (*IN_LOADER, *IN_STEP, SLOW_RANK, NOTHING)
KINDS: tuple[Kind, ...] = ("sleep", "spin")
SIZES = (0.5, 1.0, 2.0)
NUM_SEEDS = 5
MOST_FOR_OTHERS = 0.15  # processors
NUM_SLOW_RANKS = 2  # of a run of which one rank is slow: that one, and one to compare it with


@dataclass(frozen=True)
class Cell:
    """One measurement.

    planted  a stage; SLOW_RANK: a delay in IN_SLOW_RANK of rank 1 alone; NOTHING: an unchanged run
    size     of the delay, in slacks: from 1 on it should be found;  kind and size mean nothing of an unchanged run
    """

    loader: str
    seed: int
    planted: str
    kind: Kind = "sleep"
    size: float = 0.0
    num_ranks: int = 1

    @property
    def key(self) -> str:
        """The same for the same cell, in any run."""
        ranks = f"{self.num_ranks} ranks/" if self.num_ranks > 1 and self.planted != SLOW_RANK else ""
        what = self.planted if self.planted == NOTHING else f"{self.planted}/{self.kind}/{self.size:g}"
        return f"{self.loader}/{self.seed}/{ranks}{what}"

    @property
    def baseline(self) -> Baseline:
        """The run it is planted in: there the other side limits. Unchanged runs are of either."""
        if self.num_ranks > 1 or self.planted in IN_LOADER:
            return "step"
        if self.planted in IN_STEP:
            return "loader"
        return "step" if self.seed % 2 else "loader"

    @property
    def group(self) -> tuple[str, int, int]:
        """Cells that are measured with the same open loader and step."""
        return self.loader, self.seed, self.num_ranks


@dataclass(frozen=True)
class Outcome:
    """What was measured of a cell. Microseconds are of an image.

    base_stage    carries the baseline's own delay and is to be named where nothing else limits
    slack_us      from this delay on the verdict should be the planted stage;  injected_us  what was planted
    named         the verdict's stage, or "inconclusive"
    wall_…_us     of the planted stage, before and with the delay, by the table of stages
    loop_…_us     of the whole loop, and what it should be if what works at once does so perfectly
    others_cpus   processors that other programs used meanwhile, of those this one may use
    note          why it could not be measured; all else is then None
    """

    cell: Cell
    base_stage: str | None = None
    slack_us: float | None = None
    injected_us: float | None = None
    named: str | None = None
    slow_rank: int | None = None
    confidence: float | None = None
    sentence: str = ""
    wall_before_us: float | None = None
    wall_after_us: float | None = None
    loop_before_us: float | None = None
    loop_after_us: float | None = None
    loop_predicted_us: float | None = None
    seconds: float = 0.0
    others_cpus: float = 0.0
    note: str = ""

    @property
    def is_disturbed(self) -> bool:
        """Whether others used so much of the machine that what was planted was not what happened: work that waits for
        a processor takes longer than was asked for."""
        return self.others_cpus > MOST_FOR_OTHERS

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` makes it this again."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Outcome":
        """What `as_json` gave."""
        return cls(**{**data, "cell": Cell(**data["cell"])})


def matrix(
    loaders: Sequence[str], planted: Iterable[str], kinds: Sequence[Kind], sizes: Sequence[float], seeds: Iterable[int]
) -> list[Cell]:
    """All cells of the matrix, seed by seed. An unchanged run is there once a group."""
    stages = list(planted)
    cells = []
    for seed, loader in itertools.product(seeds, loaders):
        for num_ranks, group in (
            (1, [stage for stage in stages if stage not in (SLOW_RANK, NOTHING)]),
            (NUM_SLOW_RANKS, [stage for stage in stages if stage == SLOW_RANK]),
        ):
            cells += [
                Cell(loader, seed, stage, kind, size, num_ranks)
                for stage, kind, size in itertools.product(group, kinds, sizes)
            ]
            if NOTHING in stages and (group or num_ranks == 1):
                cells.append(Cell(loader, seed, NOTHING, num_ranks=num_ranks))
    return cells


def delay_of(kind: Kind, microseconds: float) -> Delay:
    """A delay of so much an image."""
    return Delay(kind, microseconds / 1e6)
