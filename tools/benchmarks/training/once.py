"""Run in a process of its own: one side, on a resident batch and then from images. Its last line is JSON.

python once.py JOB

Either {"unavailable": why}, or of each feed the images and seconds of a window in the middle of training, and how many
parameters the model has. What began and failed ends with status 2.
"""

import importlib
import os
import resource
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])

import torch

from loaders.choose import slower_because
from loaders.torchvision_loader import TorchvisionLoader
from tools.benchmarks.telling import Stopped, tell
from tools.benchmarks.training.job import Job
from tools.benchmarks.training.sides import OURS, SIDES
from tools.benchmarks.training.window import Window


def measure(job: Job) -> dict[str, Any]:
    """Of each feed {"num_images", "wall_s", "s_per_image", "windows"}; "num_parameters", "peak_rss_bytes" of all; of
    ours "slower_because", what keeps its loader from its full speed here."""
    module, function = SIDES[job.side].trains.split(".")
    train = getattr(importlib.import_module(f"tools.benchmarks.training.{module}"), function)
    measured: dict[str, Any] = {}
    for feed in job.feeds:
        window = Window(
            job.warm_s, job.seconds, group_of(job, feed), torch.device(job.device), num_windows=job.num_windows
        )
        model = train(job, window, feed)
        if not window.figures:
            raise Stopped(f"{job.side} ended before its window did: it was stopped")
        measured[feed] = {**window.figures, "windows": window.each}
        measured["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if job.side == OURS:
        measured["slower_because"] = slower_because(job.loader)
    measured["peak_rss_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return measured


def group_of(job: Job, feed: str) -> int:
    """How many batches come together: as many as there are workers where each makes batches of its own, else one."""
    in_workers = job.side != OURS or job.loader == TorchvisionLoader.name
    return job.num_workers if in_workers and feed != "resident" else 1


if __name__ == "__main__":
    # worker processes that stay between epochs need not be waited for: their group is ended
    os._exit(tell(lambda: measure(Job.read(sys.argv[1]))))
