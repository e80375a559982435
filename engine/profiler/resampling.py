"""How sure one may be that one thing is larger than another, from a few interleaved rounds of both."""

from collections.abc import Sequence

import numpy as np

CLOSE = 0.05  # two numbers must differ by this share, beside their noise, before one is called the larger
SURE = 0.95  # a chance from which on it is
_ROUNDS = 5  # of fewer the difference must be larger: two or three soon agree by accident

_RESAMPLES = 2000


def chance_clearly_above(high: Sequence[float], low: Sequence[float], by: float = CLOSE) -> float:
    """The chance, 0-1, that `high` is above `low` by more than a share `by`, or by more than that of few rounds."""
    few = max(1.0, _ROUNDS / min(len(high), len(low)))
    return chance_above(high, low, 1 + by * few**2)


def chance_above(high: Sequence[float], low: Sequence[float], factor: float = 1.0) -> float:
    """The share, 0-1, of redrawn rounds in which the median of `high` is above `factor` times that of `low`.

    Rounds of the same number were measured next to each other, so that what slowed a round slowed both: where there
    are as many of both they are drawn in pairs.
    """
    generator = np.random.default_rng(0)
    of_high = generator.integers(len(high), size=(_RESAMPLES, len(high)))
    of_low = of_high if len(low) == len(high) else generator.integers(len(low), size=(_RESAMPLES, len(low)))
    medians = np.median(np.asarray(high)[of_high], axis=1), np.median(np.asarray(low)[of_low], axis=1)
    return float(np.mean(medians[0] > factor * medians[1]))
