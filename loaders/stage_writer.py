"""Noting what the stages of a loader take, in memory that threads, forked workers and the native kernel share.

A row a thread or process: each adds to its own, so nobody takes a lock. It is cheap enough to be left on: two looks at
the clock an image and stage. A thread's processor time takes a call into the system, so it is read of every eighth.
"""

import time
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError, did_you_mean

LOADER_STAGES = ("read", "decode", "augment", "collate", "hand-off", "pin", "copy")

# A row of the shared memory, in int64: the delay of each stage, then for each stage these four and its histogram.
# `StageRow` of native/feedrate.h is the same.
NUM_BUCKETS = 256
COUNT, SAMPLED_COUNT, WALL_NS, SAMPLED_CPU_NS, HISTOGRAM = range(5)
STAGE_CELLS = HISTOGRAM + NUM_BUCKETS
DELAY_CELLS = 8  # one more than there are stages: rows then are whole cache lines
ROW_CELLS = DELAY_CELLS + 8 * STAGE_CELLS
CPU_EVERY_IMAGES = 8

# Buckets of wall time an image: each doubling is cut in eight, from 64 ns on, so a bucket is at most an eighth wide.
FIRST_OCTAVE = 6
PARTS_BITS = 3

# what those have written down who cannot import it
LAYOUT = (
    *(DELAY_CELLS, STAGE_CELLS, NUM_BUCKETS, FIRST_OCTAVE, PARTS_BITS, CPU_EVERY_IMAGES),
    *(COUNT, SAMPLED_COUNT, WALL_NS, SAMPLED_CPU_NS, HISTOGRAM),
)

_BURNT = bytes(16 << 10)


@dataclass(frozen=True)
class Delay:
    """Time taken on purpose within a stage, to see whether it is found: by waiting ("sleep") or by working ("spin").

    seconds  an image; of processor time where it spins
    """

    kind: Literal["sleep", "spin"]
    seconds: float

    def __post_init__(self) -> None:
        if self.kind not in ("sleep", "spin"):
            raise FeedrateError(f"a delay of kind '{self.kind}': it must be 'sleep' or 'spin'")
        if not 0 < self.seconds <= 60:
            raise FeedrateError(f"a delay of {self.seconds} s an image must be more than 0 and at most 60")

    @property
    def cell(self) -> int:
        """As it stands in shared memory, written and read in one piece: ns, negative where it spins."""
        duration_ns = max(1, round(self.seconds * 1e9))
        return duration_ns if self.kind == "sleep" else -duration_ns


def obey_delay(cell: int, images: int) -> None:
    """Wait or work as `Delay.cell` says, for so many images. Without the interpreter's lock."""
    if cell > 0:
        time.sleep(cell * images / 1e9)
        return
    end_ns = time.thread_time_ns() - cell * images
    while time.thread_time_ns() < end_ns:
        sha256(_BURNT)  # work that lets other threads run, as decoding does


def unknown_stage(name: str) -> FeedrateError:
    """What to raise for a name that is not in LOADER_STAGES."""
    known = ", ".join(LOADER_STAGES)
    return FeedrateError(f"a loader has no stage '{name}': {did_you_mean(name, LOADER_STAGES)}known are {known}")


def bucket_of(wall_ns: int) -> int:
    """The number of the bucket for a wall time."""
    octave = wall_ns.bit_length() - 1
    if octave < FIRST_OCTAVE:
        return 0
    part = (wall_ns >> (octave - PARTS_BITS)) & 7
    return min(NUM_BUCKETS - 1, (octave - FIRST_OCTAVE) * 8 + part)


def bucket_start_s(bucket: int) -> float:
    """The smallest wall time in a bucket; the first holds all that is shorter, too."""
    octave, part = divmod(bucket, 8)
    return 1e-9 * ((8 + part) << octave + FIRST_OCTAVE - PARTS_BITS) if bucket else 0.0


class StageSpan:
    """A context manager: what happens inside took `images` images through a stage. One thread's own.

    What ends in an exception counts as time, and for no image.
    """

    __slots__ = ("_at", "_begun_cpu_ns", "_begun_ns", "_cells", "_delay_at", "_until_cpu", "images")

    def __init__(self, cells: memoryview, delay_at: int, at: int) -> None:
        self._cells = cells
        self._delay_at = delay_at
        self._at = at
        self._until_cpu = 0  # images until processor time is read again
        self._begun_ns = 0
        self._begun_cpu_ns: int | None = None
        self.images = 1

    def __enter__(self) -> "StageSpan":
        self._begun_cpu_ns = time.thread_time_ns() if self._until_cpu <= 0 else None
        self._begun_ns = time.perf_counter_ns()
        return self

    @property
    def delay_ns(self) -> int:
        """The delay asked for now, as `Delay.cell`; 0: none."""
        return int(self._cells[self._delay_at])

    def not_before(self, moment_ns: int) -> None:
        """The time until this moment of `time.perf_counter_ns`, in any process, was spent waiting for others."""
        self._begun_ns = max(self._begun_ns, moment_ns)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        images = self.images if kind is None else 0
        delay = self._cells[self._delay_at]
        if delay and images:
            obey_delay(delay, images)
        wall_ns = max(0, time.perf_counter_ns() - self._begun_ns)
        cpu_ns = None
        if self._begun_cpu_ns is not None:
            cpu_ns = time.thread_time_ns() - self._begun_cpu_ns
            self._until_cpu = CPU_EVERY_IMAGES
        self._until_cpu -= images or 1
        self.record(images, wall_ns, cpu_ns)

    def record(self, images: int, wall_ns: int, cpu_ns: int | None) -> None:
        """Note what was measured by other means: for images that come through here for the first time, or for none."""
        cells, at = self._cells, self._at
        cells[at + WALL_NS] += wall_ns
        if cpu_ns is not None:
            cells[at + SAMPLED_COUNT] += images
            cells[at + SAMPLED_CPU_NS] += cpu_ns
        if images:
            cells[at + COUNT] += images
            cells[at + HISTOGRAM + bucket_of(wall_ns // images)] += images


class StageWriter:
    """One thread's or process's means of noting what its stages take.

    cells  int64 [ROW_CELLS], its row of the shared memory, which the native kernel and FFCV's compiled code write to
    """

    is_on = True

    def __init__(self, cells: memoryview, start: int) -> None:
        self.cells: NDArray[np.int64] = np.asarray(cells[start : start + ROW_CELLS]).view(np.int64)
        self._spans = {
            stage: StageSpan(cells, start + number, start + DELAY_CELLS + number * STAGE_CELLS)
            for number, stage in enumerate(LOADER_STAGES)
        }

    def stage(self, name: str, images: int = 1) -> StageSpan:
        """`with writer.stage("decode"): …` notes what is inside, and obeys the delay of that stage.

        images  that pass it; 0: more of the time of images that are counted elsewhere

        A stage cannot stand inside itself. Raises FeedrateError for a name that is not in LOADER_STAGES.
        """
        span = self._spans.get(name)
        if span is None:
            raise unknown_stage(name)
        span.images = images
        return span


class _NoSpan(StageSpan):
    """In place of a span where nothing is timed; shared by all threads."""

    def __init__(self) -> None:
        self.images = 0

    def __enter__(self) -> StageSpan:
        return self

    def not_before(self, moment_ns: int) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def record(self, images: int, wall_ns: int, cpu_ns: int | None) -> None:
        pass


class Untimed(StageWriter):
    """A writer that notes nothing and delays nothing: what loaders use that are given no `StageTimes`."""

    is_on = False

    def __init__(self) -> None:
        self.cells = np.zeros(0, np.int64)
        self._span = _NoSpan()

    def stage(self, name: str, images: int = 1) -> StageSpan:
        """Nothing."""
        return self._span


UNTIMED = Untimed()
