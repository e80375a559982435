"""Run in a process of its own: one side, for a while. Prints one line of JSON.

python once.py JOB

Either {"unavailable": why}, or the seconds to the first batch, counted from the start of this script and so with all
imports, and of a window in the middle of the stream its images, its seconds and its processor time. The window begins
and ends just after a batch, both times after a multiple of the workers' number, because worker processes deliver in
groups. What was prepared before it began was prepared before it ended, too, so queues favour nobody.

Of a cold case a first epoch is read from the page cache; then the files are evicted, and the window is the second
epoch, the whole of it.
"""

import time

_STARTED_S = time.perf_counter()

import importlib
import itertools
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

import psutil
import torch

from tools.benchmarks.loading.cold import evict
from tools.benchmarks.loading.job import Job
from tools.benchmarks.loading.sides import SIDES, LoadSide
from tools.benchmarks.telling import tell


def measured(job: Job) -> dict[str, float]:
    """The figures of its side."""
    side = SIDES[job.side]
    stream = open_stream(side, job)
    first = next(stream)
    first_batch_s = time.perf_counter() - _STARTED_S
    check(first, side, job)
    if job.epoch_batches:
        for _ in range(job.epoch_batches - 1):
            next(stream)
        evict(Path(job.data[side.reads]))
        figures = measure(stream, job.batch_size, 0.0, job.epoch_batches)
    else:
        warm_up(stream, job.warm_s, job.num_workers)
        figures = measure(stream, job.batch_size, job.seconds, job.num_workers)
    stream.close()
    return {"first_batch_s": first_batch_s, **figures}


def open_stream(side: LoadSide, job: Job) -> Iterator[torch.Tensor]:
    """The endless stream of batches of this side."""
    module, function = side.stream.split(".")
    streams = importlib.import_module(f"tools.benchmarks.loading.{module}")
    stream: Iterator[torch.Tensor] = getattr(streams, function)(job)
    return stream


def check(images: torch.Tensor, side: LoadSide, job: Job) -> None:
    """Raises ValueError where a batch is not what all sides have to deliver."""
    if side.output == "rectangles":  # of any size
        return
    shape = (job.batch_size, 3, job.size_px, job.size_px)
    if tuple(images.shape) != shape or str(images.dtype) != f"torch.{side.output}":
        raise ValueError(f"{job.side} delivers {images.dtype} {tuple(images.shape)} instead of {side.output} {shape}")


def warm_up(stream: Iterator[torch.Tensor], seconds: float, group: int) -> None:
    """Take batches for at least `seconds`, and a multiple of `group` with the one that was taken before."""
    started_s = time.perf_counter()
    for count in itertools.count(2):
        next(stream)
        if count % group == 0 and time.perf_counter() - started_s >= seconds:
            return


def measure(
    stream: Iterator[torch.Tensor],
    batch_size: int,
    seconds: float,
    group: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Take batches for at least `seconds`, a multiple of `group` of them."""
    cpu_before_s, started_s = processor_time_s(), clock()
    for count in itertools.count(1):
        next(stream)
        wall_s = clock() - started_s
        if count % group == 0 and wall_s >= seconds:
            break
    cpu_s = processor_time_s() - cpu_before_s
    num_images = count * batch_size
    return {
        "num_images": num_images,
        "wall_s": wall_s,
        "s_per_image": wall_s / num_images,
        "cpu_s_per_image": cpu_s / num_images,
    }


def processor_time_s() -> float:
    """Of this process and of all it started, whether they run or have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total_s = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


if __name__ == "__main__":
    # stock FFCV's threads may end the interpreter by SIGABRT while it shuts down, once in some hundred runs
    os._exit(tell(lambda: measured(Job.read(sys.argv[1]))))
