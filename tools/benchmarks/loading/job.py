"""One run of one side, as plain data: written by the command, read by the process that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..job_file import JobFile


@dataclass(frozen=True)
class Job(JobFile):
    """What to load, how, and for how long.

    side           name of one of `sides.SIDES`
    data           where the images lie, by how they are stored: "beton", "folder", "shards" (a folder each)
    view           "photos" (RandomResizedCrop and flip) or "cifar" (4 px of padding, a crop and flip)
    size_px        side of the square output
    seconds        a timed window lasts at least so long
    warm_s         how long batches are taken before it begins, after the first one
    seed           of our plan
    epoch_batches  0, or batches an epoch: then the second epoch is timed, whole, after evicting what is stored
    """

    side: str
    data: Mapping[str, str]
    view: str
    size_px: int
    batch_size: int
    num_workers: int
    seconds: float
    warm_s: float
    seed: int
    epoch_batches: int = 0
