"""What a side of `bench.py cifar-speed` is told, and what it tells of each of its runs."""

from dataclasses import dataclass

from ..job_file import JobFile


@dataclass(frozen=True)
class CifarJob(JobFile):
    """Train again and again, at most `num_runs` times and until `minutes` are over.

    side       a name of `cifar_speed.SIDES`
    data       CIFAR-10, as our loaders open it;  folder: for what runs leave behind
    options    of engine/train.py, for ours
    """

    side: str
    data: str
    folder: str
    num_runs: int
    minutes: float
    device: str
    options: list[str]


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

    def reached_s(self, accuracy: float) -> float | None:
        """Seconds of training until an evaluation gave so much; None where none did."""
        spent_s = 0.0
        for seconds, found in zip(self.epoch_s, self.accuracy, strict=True):
            spent_s += seconds
            if found >= accuracy:
                return spent_s
        return None
