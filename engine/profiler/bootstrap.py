"""How sure one may be of a median of a few rounds, and that one thing is larger than another: rounds are drawn from
those that were measured, again and again (a bootstrap). The same for the same rounds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CLOSE = 0.05  # two numbers must differ by this share, beside their noise, before one is called the larger
SURE = 0.95  # a chance from which on it is
_ROUNDS = 5  # of fewer the difference must be larger: two or three soon agree by accident

_DRAWS = 2000


def drawn(num_rounds: int, draws: int = _DRAWS, generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Which of so many rounds: `draws` × `num_rounds`. Without a `generator` the same as before."""
    generator = np.random.default_rng(0) if generator is None else generator
    return generator.integers(num_rounds, size=(draws, num_rounds))


def redrawn_medians(
    rounds: Sequence[float] | NDArray[np.float64],
    draws: int = _DRAWS,
    generator: np.random.Generator | None = None,
) -> NDArray[np.float64]:
    """The median of each of `draws` times as many rounds, drawn from these: float64. `generator`: see `drawn`."""
    medians: NDArray[np.float64] = np.median(np.asarray(rounds)[drawn(len(rounds), draws, generator)], axis=1)
    return medians


def median_interval(rounds: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """The median's 95 % interval."""
    low, high = np.percentile(redrawn_medians(rounds), (2.5, 97.5))
    return float(low), float(high)


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
    of_high = redrawn_medians(high, generator=generator)
    of_low = redrawn_medians(low, generator=None if len(low) == len(high) else generator)
    return float(np.mean(of_high > factor * of_low))
