"""How sure one may be that one thing is larger than another, from a few interleaved rounds of both."""

from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


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
