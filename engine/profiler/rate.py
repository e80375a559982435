"""A speed that was measured several times."""

import statistics
from dataclasses import dataclass
from functools import cached_property

from .bootstrap import median_interval


@dataclass(frozen=True)
class Rate:
    """Images per second over all ranks, one number a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def low(self) -> float:
        return min(self.rounds)

    @property
    def high(self) -> float:
        return max(self.rounds)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The median's 95 % interval, by drawing rounds again and again; the same for the same rounds."""
        return median_interval(self.rounds)
