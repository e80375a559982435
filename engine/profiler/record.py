"""What a profile consists of: plain frozen data that measuring fills in, a verdict judges, and reports show.

`dataclasses.asdict` makes JSON data of it, and `record_json` reads that back. None is what could not be seen or was not
measured, never 0; where it needs a reason, a `note` beside it gives one.
"""

from dataclasses import dataclass
from typing import Any, Literal

from loaders.stage_times import LOADER_STAGES as LOADER_STAGES
from loaders.stored_form import StoredAs

from .rate import Rate as Rate

SCHEMA_VERSION = 2

# one vocabulary, in the order an image meets them, wherever stages are named
COMPUTE_STAGES = ("prepare", "forward", "backward", "sync", "clip", "optimizer")
CLOCKED_STAGES = tuple(name for name in COMPUTE_STAGES if name != "sync")  # by the step's clock: sync is in backward
STAGES = (*LOADER_STAGES, *COMPUTE_STAGES, "other")
UNSEEN = "unseen"  # no stage, but has a row behind the loader's: what it does that none of them shows
ROWS = (*LOADER_STAGES, UNSEEN, *COMPUTE_STAGES, "other")
INCONCLUSIVE = "inconclusive"

Where = Literal["worker", "loop", "device"]
Side = Literal["data", "copy", "compute", "shared processors"]


@dataclass(frozen=True)
class Subject:
    """What was profiled. `path` is the data's, `resize` the mode taken, `batch_size` global, `workers` a rank's.

    num_samples   that take part in an epoch: a chosen part of the split
    stored_as     a folder of images, an archive in memory …;  is_raw  all samples;  resize_modes  that the loader knows
    stored_bytes  of all of these;  memory_bytes  what this machine had free for them, page cache included
    """

    path: str
    split: str
    num_samples: int
    loader: str
    resize: str
    workers: int
    batch_size: int
    size_px: int
    model: str
    precision: str
    device: str
    world_size: int
    stored_bytes: int | None = None
    memory_bytes: int | None = None
    stored_as: StoredAs | None = None
    is_raw: bool | None = None
    resize_modes: tuple[str, ...] | None = None

    @property
    def fits_in_memory(self) -> bool:
        """Whether from the second epoch on nothing need be read from storage; True, too, where nobody can tell."""
        return self.stored_bytes is None or self.memory_bytes is None or self.stored_bytes <= self.memory_bytes


@dataclass(frozen=True)
class StageRecord:
    """One stage, of one rank.

    wall_us         microseconds an image, mean; in a worker, of that one worker
    cpu_us          of them on a processor: the rest is waiting
    p50_us … p99_us of the wall time, an image
    ceiling         img/s of all ranks if nothing else took time, at the concurrency that was measured
    critical_share  of the loop's wall time, 0-1: all stages' together are 1
    note            why something is None
    rounds_us       wall_us, one number a round of the warm loop
    """

    name: str
    where: Where
    wall_us: float | None = None
    cpu_us: float | None = None
    p50_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None
    ceiling: float | None = None
    critical_share: float | None = None
    note: str = ""
    rounds_us: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ceilings:
    """What each part reaches without the others, and the loop with all of them.

    step         the training step on a batch that stays on the device
    fed          the same, fed from page-locked host memory; None on a CPU, which has no such way
    loader       the loader alone, page cache warm, by its number of workers: the configured one is among them
    cold         the loader alone, the set's files just dropped from the page cache, the configured workers
    loop         the training loop, page cache warm
    loop_cold    the training loop, files just dropped
    cold_share   of the files' bytes that were really gone from memory when cold rounds began, 0-1
    no_sync      the warm loop without gradients being exchanged, its slowest rank counting; None on one rank
    data_wait_share  of the warm loop's time, 0-1: it stood still because no batch was ready
    """

    step: Rate
    fed: Rate | None
    loader: dict[int, Rate]
    cold: Rate | None
    loop: Rate
    loop_cold: Rate | None
    cold_share: float | None
    no_sync: Rate | None
    data_wait_share: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueueRecord:
    """Finished batches between loader and loop, of one rank in the warm loop.

    depth           batches that can be ready at most
    ready           how many were, at each ask in order
    empty_share     of the asks that found none;  full_share  that found all of them: the loader had to pause
    get_block_share of the loop's time, spent waiting for a batch that was not ready
    put_block_share of the workers' time, in none of their stages: mostly waiting for room to put a batch into; None
                    where their stages are not all seen
    first_batch_s   from asking for an epoch to its first batch;  worker_start_s  what of it is not making that batch
    """

    depth: int
    ready: tuple[int, ...] | None
    mean_ready: float | None
    empty_share: float | None
    full_share: float | None
    get_block_share: float
    get_block_p50_ms: float
    get_block_p99_ms: float
    first_batch_s: float | None
    worker_start_s: float | None
    note: str = ""
    put_block_share: float | None = None


@dataclass(frozen=True)
class ProcessRecord:
    """One process of a rank's family, over the warm loop. `rss` counts shared pages fully, `pss` its part of them."""

    pid: int
    name: str
    cpus: float
    rss_bytes: int
    pss_bytes: int | None
    shared_bytes: int | None
    read_mb_per_s: float | None
    reads_per_s: float | None


@dataclass(frozen=True)
class ResourceRecord:
    """What one rank used over the warm loop, with its workers.

    cpus_used       processors, mean;  cpus_available  what affinity and cgroup grant all ranks of this machine
    read_mb_per_s   from storage (what the page cache had does not count);  cold_...  the same in the cold loop
    reads_per_s     calls that read, from wherever
    shared_bytes    memory that processes of the family share, /dev/shm and anonymous
    copy_mb_per_s   pixels from host to device
    gpu_share       NVML's utilisation: the share of time in which at least one kernel ran, 0-1
    device_busy_share  of the loop's time, by events around the steps' stages
    """

    cpus_used: float
    cpus_available: int
    memory_bytes: int
    shared_bytes: int | None
    read_mb_per_s: float | None
    reads_per_s: float | None
    cold_read_mb_per_s: float | None
    copy_mb_per_s: float | None
    gpu_share: float | None
    device_busy_share: float | None
    gpu_memory_allocated_bytes: int | None
    gpu_memory_reserved_bytes: int | None
    gpu_memory_peak_bytes: int | None
    gpu_power_w: float | None
    processes: tuple[ProcessRecord, ...] = ()


@dataclass(frozen=True)
class RankRecord:
    """One rank's own account of the warm loop.

    own_us   microseconds an image that it needs without the others: its waiting for data and its compute, with no
             gradients exchanged. Ranks wait for the one with the most
    stages   in the order of ROWS: all of STAGES, and UNSEEN where there is any
    own_rounds_us  own_us, one number a round
    seen_us  microseconds an image that the loader's stages took of the time of all who work at once: of workers their
             mean. None where that was not noted
    """

    rank: int
    host: str
    own_us: float
    data_wait_share: float
    stages: tuple[StageRecord, ...]
    queue: QueueRecord
    resources: ResourceRecord
    own_rounds_us: tuple[float, ...] = ()
    seen_us: float | None = None

    def stage(self, name: str) -> StageRecord | None:
        """The stage of this name, if it is told."""
        return next((stage for stage in self.stages if stage.name == name), None)


@dataclass(frozen=True)
class Advice:
    """`gain` is the loop's rate after it / now, at most; None where it cannot be told."""

    text: str
    gain: float | None


@dataclass(frozen=True)
class Verdict:
    """What the loop waits for.

    bottleneck  one of STAGES, or "inconclusive"
    side        None where even that is within the noise
    ceiling     img/s of the side that limits;  margin  the next ceiling / this one, at least 1
    confidence  0-1: share of redrawn rounds in which the same side is the slower
    runner_up   the stage that would limit next, "" where it cannot be told
    slow_rank   the rank the others wait for, None where ranks are alike
    advice      the largest gain first
    """

    bottleneck: str
    side: Side | None
    ceiling: float | None
    margin: float | None
    confidence: float
    runner_up: str
    slow_rank: int | None
    sentence: str
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class WhatIf:
    """One change to the configuration, and what it would bring.

    settings  options of engine/train.py by their name
    low, high the prediction's 95 % interval
    error     (predicted - measured) / measured; None until it was tried
    """

    change: str
    settings: dict[str, Any]
    predicted: float
    low: float
    high: float
    cpu_share: float | None
    memory_bytes: int | None
    disk_mb_per_s: float | None
    epoch_minutes: float
    cost: float | None
    measured: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Span:
    """One stage of one step of one rank, for a timeline. Seconds since the timeline began."""

    stage: str
    rank: int
    step: int
    start_s: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Everything that a report shows. `stages`, `queue` and `resources` are in `ranks`, one for each.

    others_cpus  processors that other programs took from this one, on the machine where that is most; None: not seen
    """

    schema_version: int
    subject: Subject
    ceilings: Ceilings
    ranks: tuple[RankRecord, ...]
    verdict: Verdict
    what_if: tuple[WhatIf, ...]
    timeline: tuple[Span, ...]
    config: dict[str, Any]
    environment: dict[str, Any]
    others_cpus: float | None = None

    @property
    def shown_rank(self) -> RankRecord:
        """The rank to show where one is shown: the slow one, else the main one."""
        return self.ranks[self.verdict.slow_rank or 0]
