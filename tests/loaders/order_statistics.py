"""How well an order mixes, in numbers that can be held against those of a uniform shuffle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Mixing:
    """Of the full batches of one epoch, and of that and the next. A uniform shuffle's values in brackets.

    displacement       mean distance between a sample's place in the epoch and in storage, over their number [1/3]
    neighbour_distance mean distance in storage between neighbours in the epoch, over their number [1/3]
    classes_per_batch  mean number of different classes in a batch
    mean_run           mean length of runs of one class in the epoch [1 / (1 - chance of two samples being alike)]
    longest_run        the longest of them
    mates_again        mean number of a sample's batch mates that are its mates in the next epoch, too [batch² / N]
    """

    displacement: float
    neighbour_distance: float
    classes_per_batch: float
    mean_run: float
    longest_run: int
    mates_again: float


def mixing_of(epoch: Ids, next_epoch: Ids, labels: NDArray[np.int64], batch_size: int) -> Mixing:
    """Judge two epochs' orders, int64 [N] each, of samples whose labels in stored order are `labels`, int64 [N]."""
    num_samples = len(labels)
    full = num_samples // batch_size * batch_size
    ids = epoch[:full]
    classes = labels[ids]
    ends = np.flatnonzero(np.diff(classes, append=-1))
    runs = np.diff(ends, prepend=-1)
    return Mixing(
        displacement=float(np.abs(ids - np.arange(full)).mean() / num_samples),
        neighbour_distance=float(np.abs(np.diff(ids)).mean() / num_samples),
        classes_per_batch=float(_different_in_rows(classes.reshape(-1, batch_size)).mean()),
        mean_run=float(runs.mean()),
        longest_run=int(runs.max()),
        mates_again=_mates_again(ids, next_epoch[:full], num_samples, batch_size),
    )


def _different_in_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    ordered = np.sort(rows, axis=1)
    changes: NDArray[np.int64] = np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    return 1 + changes


def _mates_again(ids: Ids, next_ids: Ids, num_samples: int, batch_size: int) -> float:
    """Over samples of both epochs: how many others share its batch in both."""
    batch_of, next_batch_of = np.full(num_samples, -1), np.full(num_samples, -1)
    batch_of[ids] = np.arange(len(ids)) // batch_size
    next_batch_of[next_ids] = np.arange(len(next_ids)) // batch_size
    in_both = (batch_of >= 0) & (next_batch_of >= 0)
    _, counts = np.unique(batch_of[in_both] * num_samples + next_batch_of[in_both], return_counts=True)
    return float((counts * (counts - 1)).sum() / counts.sum())
