"""One run of `bench.py profiler-overhead`, and the JSON by which it is handed to a process of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.generated.photos import write_photos

from ..job_file import JobFile
from ..shards import tiny_jpegs

SPANS_PER_STEP = 5  # prepare, forward, backward, clip, optimizer
_TINY_CLASSES = 10


@dataclass(frozen=True)
class Case:
    """What is trained on: `write` makes it, of so many training images.

    title  for people;  size_px  of what the model is given
    """

    title: str
    size_px: int
    batch_size: int
    num_images: int
    write: Callable[[Path, int], None]


def _write_generated(folder: Path, num_images: int) -> None:
    write_photos(folder, {"train": num_images, "val": 32}, num_classes=10)


def _write_tiny(folder: Path, num_images: int) -> None:
    """JPEGs of 16 px in class folders: nearly all of an image's time is what every image costs."""
    jpegs = tiny_jpegs()
    for split, count in {"train": num_images, "val": 32}.items():
        for number in range(count):
            path = folder / split / f"class-{number % _TINY_CLASSES}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpegs[number % len(jpegs)])


CASES: Mapping[str, Case] = {
    "photos": Case("generated photos, ResNet-20 at 64 px, batches of 64", 64, 64, 256, _write_generated),
    "tiny": Case("JPEGs of 16 px, ResNet-20 at 16 px, batches of 32: many steps a second", 16, 32, 2048, _write_tiny),
}


@dataclass(frozen=True)
class Job(JobFile):
    """Train on `data` for `pairs` pairs of epochs, one timed by the profiler and one not, after two that warm up; or
    where it `counts`, see what each thing that the profiler does costs by itself.

    is_timed_first  of the first pair; the order changes from pair to pair, since what comes second may gain or lose
    data, folder    of the images, and for the run, which is made anew
    device          "cpu" or "cuda"; on the latter only kernels run that give the same bits each time
    """

    counts: bool
    is_timed_first: bool
    data: str
    folder: str
    size_px: int
    batch_size: int
    pairs: int
    num_workers: int
    num_threads: int
    device: str = "cpu"

    def is_timed(self, epoch: int) -> bool:
        """Whether that epoch of the run has the profiler's clocks."""
        pair, second = divmod(epoch, 2)
        return bool(self.is_timed_first ^ (pair % 2) ^ second)
