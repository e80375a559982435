"""One run of one side, as plain data: written by the command, read by the process that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..job_file import JobFile
from .sides import FEEDS, MODEL


@dataclass(frozen=True)
class Job(JobFile):
    """What to train, on what, and for how long.

    side           name of one of `sides.SIDES`
    images         folder of class folders of JPEGs; `packed` holds the same, as tools/convert.py packs them
    folder         for what a run leaves behind, removed afterwards
    batch_size     of images of `size_px`
    precision      "fp32", or by autocast "bf16" or "fp16", the latter with the loss scaled
    channels_last  layout of images and weights
    device         "cpu" or "cuda"
    seconds        a timed window lasts at least so long
    warm_s         how long batches are trained on before it begins
    model          a name of torchvision's
    feeds          names of `sides.FEEDS`, one after the other
    num_windows    how many are timed, one right after the other
    compile        ours alone: by torch.compile; cuda_graphs: and that as graphs
    loader         ours alone, where images are loaded
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
    model: str = MODEL
    feeds: Sequence[str] = tuple(FEEDS)
    num_windows: int = 1
    compile: bool = False
    cuda_graphs: bool = False
    loader: str = "turbo"
