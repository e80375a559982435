"""Mean and standard deviation of the pixels that were packed, from counts of their values."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from loaders.manifest import Statistics

from .encode import Encoding
from .samples import Samples
from .split_pass import SplitPass, counted_every


def channel_statistics(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel, 0-255, from int64 [3, 256] counts: exact until the last rounding."""
    means, deviations = [], []
    for counts in histogram.tolist():
        num = sum(counts)
        mean = Fraction(sum(value * count for value, count in enumerate(counts)), num)
        mean_square = Fraction(sum(value * value * count for value, count in enumerate(counts)), num)
        means.append(float(mean))
        deviations.append(float(mean_square - mean * mean) ** 0.5)
    return means, deviations


def statistics_of(passes: Mapping[str, SplitPass], splits: Mapping[str, Samples], encoding: Encoding) -> Statistics:
    """Of the training split, or of the only one; `passes` are complete."""
    split = "train" if "train" in passes else next(iter(passes))
    tally = passes[split].tally
    mean, std = channel_statistics(np.array(tally.histogram, np.int64))
    every = counted_every(len(splits[split]), encoding)
    counts_all = tally.num_counted == len(passes[split].rows)
    which = "all samples" if counts_all else f"every {every}th sample in stored order"
    method = f"exact counts of the values of all pixels of {which}, those of encoded ones before they were encoded"
    return Statistics(mean, std, split, tally.num_counted, method)


def statistics_digest(statistics: Statistics) -> str:
    """SHA-256 of them, to the last bit: of images that packing encodes, they cannot be counted again."""
    numbers = {name: [float(value) for value in getattr(statistics, name)] for name in ("mean", "std")}  # 255 is 255.0
    return hashlib.sha256(json.dumps({**asdict(statistics), **numbers}).encode()).hexdigest()


def are_possible(statistics: Statistics) -> bool:
    """Whether any pixels have these: values in 0 … 255 deviate by √(mean (255 - mean)) at most."""
    pairs = zip(statistics.mean, statistics.std, strict=True)
    return all(0 <= mean <= 255 and 0 <= std <= (mean * (255 - mean)) ** 0.5 + 1e-6 for mean, std in pairs)
