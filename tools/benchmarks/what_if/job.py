"""What is profiled, what is then changed, and the JSON by which that is handed to a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..job_file import JobFile


@dataclass(frozen=True)
class Base:
    """A configuration that is profiled, and changes of it that are predicted and then measured.

    data     a folder in data/long;  stored  how it is packed for the base: a format of `packed_sample`
    repeat   each image is taken so often, so that an epoch has many batches
    workers, batches, formats, loaders  to change to, one at a time
    """

    data: str
    stored: str
    loader: str
    num_workers: int
    batch_size: int
    size_px: int
    num_threads: int
    repeat: int = 1
    workers: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    formats: tuple[str, ...] = ()
    loaders: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words."""
        stored = f" at {self.stored}" + (f", each {self.repeat} times" if self.repeat > 1 else "")
        return (
            f"{self.data}{stored}, {self.loader}, {self.num_workers} worker{'s' * (self.num_workers > 1)}, batch"
            f" {self.batch_size}, {self.size_px} px, {self.num_threads} thread{'s' * (self.num_threads > 1)} of torch"
        )


_PHOTOS, _SMALL = "imagenet-sample-500-packed", "imagenette-160-packed"

BASES: Mapping[str, Base] = {
    "photos": Base(
        *(_PHOTOS, "full", "turbo", 2, 32, 16, 1, 4),
        workers=(1, 3, 4), batches=(16, 64), formats=("400", "256", "raw-256"), loaders=("torchvision", "ffcv"),
    ),
    "small": Base(
        *(_SMALL, "full", "turbo", 1, 64, 16, 1),
        workers=(2, 3, 4), batches=(32, 128), formats=("raw",), loaders=("torchvision", "ffcv"),
    ),
    "reference": Base(
        *(_PHOTOS, "400", "torchvision", 2, 32, 16, 1, 4),
        workers=(1, 3, 4), batches=(64,), formats=("256", "raw-256"), loaders=("turbo", "ffcv"),
    ),
    "compiled": Base(
        *(_PHOTOS, "full", "ffcv", 2, 32, 32, 1, 4),
        workers=(1, 3, 4), batches=(16, 64), formats=("400", "256", "raw-256"), loaders=("turbo", "torchvision"),
    ),
    # for seeing whether everything runs, on any images of that name
    "tiny": Base(
        *(_SMALL, "full", "turbo", 1, 8, 16, 1, 2),
        workers=(2, 3), batches=(4,), formats=("raw",), loaders=("torchvision",),
    ),
}  # fmt: skip
DEFAULT_BASES = tuple(name for name in BASES if name != "tiny")


@dataclass(frozen=True)
class Job(JobFile):
    """Profile a base, predict, and measure its changes, in about `minutes` beside packing.

    data, folder  of the images, and for what is packed
    """

    base: str
    data: str
    folder: str
    minutes: float
    rounds: int
