"""Where a loader's time goes: what each of its stages took, over all its threads and processes.

Anybody may read at any time, and ask for a delay at any time: see `stage_writer` for how it is noted.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import FeedrateError
from .stage_writer import (
    COUNT,
    DELAY_CELLS,
    HISTOGRAM,
    LOADER_STAGES,
    ROW_CELLS,
    STAGE_CELLS,
    WALL_NS,
    Delay,
    StageWriter,
    bucket_start_s,
    unknown_stage,
)

__all__ = ["LOADER_STAGES", "Delay", "StageReading", "StageTimes", "StageWriter"]


@dataclass(frozen=True)
class StageReading:
    """What one stage took so far, all threads and processes together.

    count          images that passed it
    wall_s         time spent in it
    sampled_count  images of whose passing processor time was read, too: about every eighth
    sampled_cpu_s  processor time of those
    histogram      images by wall time: see `bucket_start_s`
    """

    count: int
    wall_s: float
    sampled_count: int
    sampled_cpu_s: float
    histogram: tuple[int, ...]

    @property
    def cpu_s(self) -> float | None:
        """Processor time of all, taking the others to be like those sampled; None where none was."""
        return self.sampled_cpu_s * self.count / self.sampled_count if self.sampled_count else None

    def quantile_s(self, q: float) -> float | None:
        """Wall time that a share `q` of the images stayed below, to an eighth of its value; None without images."""
        counts = np.cumsum(self.histogram)
        if not counts[-1]:
            return None
        rank = q * int(counts[-1])
        bucket = int(np.searchsorted(counts, rank, side="left"))
        while not self.histogram[bucket]:  # the lowest of all: at least the first image's
            bucket += 1
        start, stop = bucket_start_s(bucket), bucket_start_s(bucket + 1)
        within = 1 - (int(counts[bucket]) - rank) / self.histogram[bucket]
        return start + (stop - start) * within

    def since(self, earlier: "StageReading | None") -> "StageReading":
        """What came after `earlier`, a reading of the same stage; None: all did."""
        if earlier is None:
            return self
        return StageReading(
            self.count - earlier.count,
            self.wall_s - earlier.wall_s,
            self.sampled_count - earlier.sampled_count,
            self.sampled_cpu_s - earlier.sampled_cpu_s,
            tuple(now - before for now, before in zip(self.histogram, earlier.histogram, strict=True)),
        )


class StageTimes:
    """What the stages of one loader take. Processes forked later share it; it cannot be sent to any.

    num_writers  the loader's threads or processes, and one for whoever asks it for batches
    delays       to begin with: see `delay`
    """

    def __init__(self, num_writers: int, delays: Mapping[str, Delay] | None = None) -> None:
        if num_writers < 1:
            raise FeedrateError(f"times of {num_writers} threads: at least 1 is needed")
        self.num_writers = num_writers
        self._memory = mmap.mmap(-1, num_writers * ROW_CELLS * 8)
        self._cells = memoryview(self._memory).cast("q")
        self._rows = np.frombuffer(self._memory, np.int64).reshape(num_writers, ROW_CELLS)
        for stage, delay in (delays or {}).items():
            self.delay(stage, delay)

    def writer(self, index: int) -> StageWriter:
        """For one thread or process; number 0 is whoever asks for batches, then come the workers."""
        assert 0 <= index < self.num_writers
        return StageWriter(self._cells, index * ROW_CELLS)

    def delay(self, stage: str, delay: Delay | None) -> None:
        """From the next image on, take so much longer in a stage; None: no longer."""
        if stage not in LOADER_STAGES:
            raise unknown_stage(stage)
        self._rows[:, LOADER_STAGES.index(stage)] = delay.cell if delay else 0

    def read(self) -> dict[str, StageReading]:
        """Sums over all writers, in the order of LOADER_STAGES. A stage that nobody passed is absent.

        Images that pass just now may be in some of a stage's figures and not yet in others.
        """
        sums = self._rows[:, DELAY_CELLS:].reshape(self.num_writers, -1, STAGE_CELLS).sum(axis=0)
        readings = {}
        for stage, row in zip(LOADER_STAGES, sums, strict=False):
            if row[COUNT] or row[WALL_NS]:
                count, sampled, wall_ns, cpu_ns = row[:HISTOGRAM].tolist()
                readings[stage] = StageReading(
                    count, wall_ns / 1e9, sampled, cpu_ns / 1e9, tuple(row[HISTOGRAM:].tolist())
                )
        return readings

    def elapsed_s(self) -> dict[str, float]:
        """What each stage took of the time of all who work at once: of the workers their mean, of whoever asks for
        batches all of it. A stage that nobody passed is absent. Some microseconds, where `read` takes tens of them.
        """
        sums = self._rows[:, DELAY_CELLS:].reshape(self.num_writers, -1, STAGE_CELLS)
        wall_s = sums[:, : len(LOADER_STAGES), WALL_NS] / 1e9
        elapsed = wall_s[0] + wall_s[1:].sum(axis=0) / max(1, self.num_writers - 1)
        return {stage: float(taken) for stage, taken in zip(LOADER_STAGES, elapsed, strict=True) if taken}

    def __reduce__(self) -> str:
        raise FeedrateError("stage times cannot be sent to another process: fork it after they are made")
