"""What a packing will take, from a few of its samples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loaders.counter_random import Draws

from .encode import Encoding
from .outputs import pixel_bytes
from .pack_work import PackWork, Task
from .samples import Samples

_NUM_PROBED = 64
_SURE = 3.0  # standard errors


@dataclass(frozen=True)
class Estimate:
    """Of one split: bytes on disk, their standard error, and how many of the samples that were tried could be used."""

    num_bytes: float
    standard_error: float
    num_probed: int
    num_bad: int

    @property
    def at_least(self) -> float:
        """What it surely takes; nothing is sure from less than two samples."""
        return max(0.0, self.num_bytes - _SURE * self.standard_error) if self.num_probed > 1 else 0.0


def estimate(
    splits: Mapping[str, Samples], encoding: Encoding, formats: tuple[str, ...], num_probed: int = _NUM_PROBED
) -> dict[str, Estimate]:
    """Encode some samples of each split, the same each time, and extrapolate by the bytes they have in the source."""
    return {split: _of_split(samples, encoding, formats, num_probed) for split, samples in splits.items()}


def _of_split(samples: Samples, encoding: Encoding, formats: tuple[str, ...], num_probed: int) -> Estimate:
    ids = np.arange(len(samples))
    probed = np.sort(np.argsort(Draws(0, 0)("probed for size", ids), kind="stable")[:num_probed])
    task = Task(
        [samples.stored(index) for index in probed.tolist()],
        probed,
        samples.labels[probed],
        np.zeros(len(probed), bool),
    )
    work = PackWork(encoding, formats, seed=0)
    report, _ = work.prepare(task, lambda item: None)
    rows = report.rows
    stored = np.zeros(len(rows))
    if "beton" in formats:
        stored += np.where(rows["beton_is_raw"], pixel_bytes(rows), rows["jpeg_bytes"])
    if "shards" in formats:
        stored += rows["jpeg_bytes"] + 2048
    if "raw" in formats:
        stored += pixel_bytes(rows)
    if not len(rows):
        return Estimate(0.0, 0.0, 0, len(report.bad))
    came = samples.num_bytes[rows["source_index"]].astype(np.float64)
    num_samples, all_came = len(samples), float(samples.num_bytes.sum())
    ratio = stored.sum() / max(1.0, came.sum())
    num_bytes = ratio * all_came
    left = stored - ratio * came  # a ratio estimator's error is that of what the ratio leaves unexplained
    spread = float(left.std(ddof=1)) if len(left) > 1 else 0.0
    standard_error = num_samples * spread / len(rows) ** 0.5 * (1 - len(rows) / num_samples) ** 0.5
    return Estimate(num_bytes, standard_error, len(rows), len(report.bad))
