"""One run of one side, as plain data: written by the command, read by the process that runs it."""

from dataclasses import dataclass

from ..job_file import JobFile


@dataclass(frozen=True)
class Job(JobFile):
    """What to train, on what, and for how long.

    side           name of one of `sides.SIDES`
    images         folder of class folders of JPEGs; `packed` holds the same, as tools/convert.py packs them
    folder         for what a run leaves behind, removed afterwards
    batch_size     of images of `size_px`
    precision      "fp32" or "bf16", the latter by autocast
    channels_last  layout of images and weights
    device         "cpu" or "cuda"
    seconds        a timed window lasts at least so long
    warm_s         how long batches are trained on before it begins
    """

    side: str
    images: str
    packed: str
    folder: str
    size_px: int
    batch_size: int
    precision: str
    channels_last: bool
    device: str
    num_threads: int
    num_workers: int
    seconds: float
    warm_s: float
