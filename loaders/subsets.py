"""Which samples of a split to train or evaluate on, and how likely each is to be drawn."""

from collections.abc import Sequence
from fractions import Fraction
from math import inf

import numpy as np
from numpy.typing import NDArray

from .counter_random import draw, stream_key
from .errors import FeedrateError, did_you_mean

Ids = NDArray[np.int64]


def choose_samples(
    labels: NDArray[np.int64], labels_wanted: Sequence[int] = (), subset: float = 1.0, seed: int = 0
) -> Ids | None:
    """int64 [n], ascending: the stored samples that take part; None: all of them.

    labels_wanted  only samples of these labels; none named: of all
    subset         a share of those, up to 1, or a number of them, above 1: the first in an order that depends on `seed`
                   alone, so a smaller subset is part of a larger one

    Raises FeedrateError where nothing is left or there are too few.
    """
    ids = np.arange(len(labels), dtype=np.int64)
    if len(labels_wanted):
        ids = ids[np.isin(labels, np.asarray(labels_wanted))]
    if not len(ids):
        raise FeedrateError("the classes chosen have no samples in this split: choose others")
    refuse_bad_subset(subset)
    # the share is a decimal number as written: 0.07 of 100 are 7, although the nearest float is above
    number = int(subset) if subset > 1 else int(Fraction(str(subset)) * len(ids))
    if not 0 < number <= len(ids):
        raise FeedrateError(f"a subset of {subset:g} makes {number} samples: it must be 1 … {len(ids)} here")
    if number < len(ids):
        keys = draw(stream_key(seed, 0, "subset"), ids)
        ids = np.sort(ids[np.argsort(keys, kind="stable")[:number]])
    return None if len(ids) == len(labels) else ids


def refuse_bad_subset(subset: float) -> None:
    """Raise FeedrateError on what is neither a share nor a number of samples."""
    if not 0 < subset < inf or (subset > 1 and subset != int(subset)):
        raise FeedrateError(f"a subset of {subset} must be a share, above 0 and up to 1, or a whole number of samples")


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels of the classes called so. Raises FeedrateError on a name that is not there."""
    label_of = {name: label for label, name in enumerate(classes)}
    for name in names:
        if name not in label_of:
            known = ", ".join(classes[:5]) + (" …" if len(classes) > 5 else "")
            raise FeedrateError(f"no class '{name}': {did_you_mean(name, classes)}the {len(classes)} are {known}")
    return [label_of[name] for name in names]


def balanced_weights(labels: NDArray[np.int64], pool: Ids | None = None) -> NDArray[np.float64]:
    """float64 [N] with which each class that occurs (in the pool) is drawn equally often."""
    counts = np.bincount(labels if pool is None else labels[pool], minlength=int(labels.max()) + 1)
    weights: NDArray[np.float64] = 1 / np.maximum(1, counts)[labels]
    return weights
