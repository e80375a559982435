"""The planted bottlenecks, and what a run of the script is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..job_file import JobFile

Side = Literal["loading", "step", "host", "rank"]


@dataclass(frozen=True)
class Case:
    """One bottleneck: `stage` takes so many milliseconds an image longer, by waiting ("sleep") or working ("spin").

    title  for people;  side  where it is
    """

    title: str
    side: Side
    stage: str
    kind: Literal["sleep", "spin"]
    ms_per_image: float
    num_workers: int = 2
    num_ranks: int = 1


# In two workers 14 ms an image are 7 of the loop's; without delays an image takes it about 3 ms, nearly all in the step
CASES: Mapping[str, Case] = {
    "read": Case("slow storage", "loading", "read", "sleep", 14),
    "decode": Case("slow decoding", "loading", "decode", "spin", 14),
    "augment": Case("slow augmentation in the loader", "loading", "augment", "spin", 14),
    "collate": Case("slow collating", "loading", "collate", "sleep", 14),
    "forward": Case("slow forward pass", "step", "forward", "spin", 8),
    "backward": Case("slow backward pass", "step", "backward", "sleep", 8),
    "optimizer": Case("slow optimizer", "step", "optimizer", "spin", 8),
    "host": Case("waiting in the loop itself, as for logging", "host", "other", "sleep", 8),
    "workers": Case("one worker where two would do twice as much", "loading", "workers", "sleep", 8, num_workers=1),
    "rank": Case("rank 1 of 2 slow in its forward pass", "rank", "forward", "sleep", 8, num_ranks=2),
}


@dataclass(frozen=True)
class Job(JobFile):
    """Run the script on `data` for so many steps with one of CASES planted, watched by one of the watchers; write what
    it told to `result`.

    minutes, rounds  of `tools/profile.py`, where that watches
    """

    case: str
    watcher: str
    data: str
    result: str
    num_steps: int
    minutes: float
    num_rounds: int
    batch_size_per_rank: int = 16
    size_px: int = 32
