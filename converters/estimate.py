"""What a packing will take, from a few of its samples."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from loaders.counter_random import Draws

from .crew import run_in_order
from .encode import Encoding
from .formats.outputs import Place, Rows, pixel_bytes
from .pack_work import PackWork, Report, Task
from .samples import Samples

_NUM_PROBED = 64
_TASK_SAMPLES = 8
_TAR_BYTES = 2048  # two headers, the label's block and half a block of padding: what a shard adds to a sample, about
_SURE = 3.0  # standard errors


@dataclass(frozen=True)
class Estimate:
    """Of one split: bytes on disk, their standard error, and how many of the samples that were tried could be used."""

    num_bytes: float
    standard_error: float
    num_probed: int

    @property
    def at_least(self) -> float:
        """What it surely takes; nothing is sure from less than two samples."""
        return max(0.0, self.num_bytes - _SURE * self.standard_error) if self.num_probed > 1 else 0.0


def estimate(
    splits: Mapping[str, Samples], encoding: Encoding, formats: tuple[str, ...], num_workers: int
) -> dict[str, Estimate]:
    """Encode some samples of each split, the same each time, and extrapolate by the bytes they have in the source.

    By the crew as well: a sample that kills its reader must not end this process. Raises as `crew.run_in_order` does.
    """
    return {split: _of_split(samples, encoding, formats, num_workers) for split, samples in splits.items()}


def _of_split(samples: Samples, encoding: Encoding, formats: tuple[str, ...], num_workers: int) -> Estimate:
    probed = np.argsort(Draws(0, 0)("probed for size", np.arange(len(samples))), kind="stable")[:_NUM_PROBED]
    tasks = [
        Task([samples.stored(index) for index in part.tolist()], part, samples.labels[part], np.zeros(len(part), bool))
        for part in np.array_split(probed, -(-len(probed) // _TASK_SAMPLES))
    ]
    reports: list[Report] = []

    def note(task: Task, report: Report) -> list[Place]:
        reports.append(report)
        return []

    def describe(number: int, item: int) -> str:
        return tasks[number].stored[max(0, item)].where()

    with closing(run_in_order(PackWork(encoding, formats, seed=0), tasks, num_workers, note, describe)) as done:
        for _ in done:
            pass
    rows = np.concatenate([report.rows for report in reports])
    return _extrapolated(samples, rows, formats)


def _extrapolated(samples: Samples, rows: Rows, formats: tuple[str, ...]) -> Estimate:
    stored = np.zeros(len(rows))
    if "beton" in formats:
        stored += np.where(rows["beton_is_raw"], pixel_bytes(rows), rows["jpeg_bytes"])
    if "shards" in formats:
        stored += rows["jpeg_bytes"] + _TAR_BYTES
    if "raw" in formats:
        stored += pixel_bytes(rows)
    stored += rows["seek_bytes"]
    if not len(rows):
        return Estimate(0.0, 0.0, 0)
    came = samples.num_bytes[rows["source_index"]].astype(np.float64)
    num_samples, all_came = len(samples), float(samples.num_bytes.sum())
    ratio = stored.sum() / max(1.0, came.sum())
    num_bytes = ratio * all_came
    left = stored - ratio * came  # a ratio estimator's error is that of what the ratio leaves unexplained
    spread = float(left.std(ddof=1)) if len(left) > 1 else 0.0
    standard_error = num_samples * spread / len(rows) ** 0.5 * (1 - len(rows) / num_samples) ** 0.5
    return Estimate(num_bytes, standard_error, len(rows))
