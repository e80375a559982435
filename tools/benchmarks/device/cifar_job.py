"""What a side of `bench.py cifar-speed` is told, and what it tells of each of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..job_file import JobFile
from ..rounds import Rounds


@dataclass(frozen=True)
class CifarJob(JobFile):
    """Train again and again, until there are `num_runs` runs or `minutes` are over.

    side       a name of `cifar_speed.SIDES`
    data       CIFAR-10, as our loaders open it;  folder: for what runs leave behind;  kept: for their figures
    options    of engine/train.py, for ours
    """

    side: str
    data: str
    folder: str
    kept: str
    num_runs: int
    minutes: float
    device: str
    options: list[str]

    def rounds(self) -> Rounds:
        """The runs that are finished, as CifarRun's fields by their number, whichever call made them."""
        told = {"side": self.side, "data": self.data, "device": self.device, "options": self.options}
        return Rounds(Path(self.kept), told)


@dataclass(frozen=True)
class CifarRun:
    """One run from scratch.

    epoch_s   seconds of training of each epoch, the device waited for; without evaluation, and without what a first
              run alone does (compiling, choosing kernels)
    accuracy  of the test images after each epoch, 0-1, as the side evaluates; NaN where it does not then
    final     of what the run ends with, as the side evaluates it at its best
    """

    epoch_s: list[float]
    accuracy: list[float]
    final: float

    @property
    def train_s(self) -> float:
        return sum(self.epoch_s)

    @classmethod
    def all_of(cls, done: Mapping[str, Any]) -> "list[CifarRun]":
        """Those that `CifarJob.rounds` has, in order."""
        return [cls(**one) for one in done.values()]

    def reached_s(self, accuracy: float) -> float | None:
        """Seconds of training until an evaluation gave so much; None where none did."""
        spent_s = 0.0
        for seconds, found in zip(self.epoch_s, self.accuracy, strict=True):
            spent_s += seconds
            if found >= accuracy:
                return spent_s
        return None
