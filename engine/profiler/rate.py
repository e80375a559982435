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

    @property
    def spread(self) -> float:
        """(highest - lowest) / median."""
        return (self.high - self.low) / self.median

    def interval(self) -> tuple[float, float]:
        """The median's 95 % interval, by drawing rounds again and again; the same for the same rounds."""
        return self._interval

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return median_interval(self.rounds)
