"""Ours, as `engine/train.py` runs it: its loop, with step, loss watch, progress, signals, logging and display."""

import contextlib
import itertools
import shutil
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from torch import nn

from engine.build import build_run
from engine.command_line import parse_config
from engine.config import Config
from engine.dist import start_ranks
from engine.loop import train as run_loop
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from loaders.api import Batch, BatchIterator, Loader

from .job import Job
from .sides import LEARNING_RATE, LOADING, MOMENTUM, SMOOTHING, WEIGHT_DECAY
from .window import Window, WindowOver


class _Timed:
    """A loader whose epoch never ends, seen through a window."""

    def __init__(self, loader: Loader, window: Window) -> None:
        self.name = loader.name
        self._loader, self._window = loader, window

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, index: int, start: int = 0) -> BatchIterator:
        return self._timed(index)

    def identity(self) -> dict[str, Any]:
        return self._loader.identity()

    def close(self) -> None:
        self._loader.close()

    def _timed(self, first: int) -> Generator[Batch]:
        for index in itertools.count(first):
            with contextlib.closing(self._loader.epoch(index)) as batches:
                yield from self._window.over(batches, lambda batch: len(batch.labels))


def train(job: Job, window: Window, feed: str) -> nn.Module:
    """Train, or of feed "loader" only load, until the window is over. Returns the model."""
    config = config_of(job, feed)
    stop = StopRequest()
    try:
        with build_run(config, start_ranks(job.device, 0.0), Display(is_main=True), stop) as run:
            timed = replace(run, data=replace(run.data, train=_Timed(run.data.train, window)))
            with contextlib.suppress(WindowOver):
                if feed == LOADING:
                    for _ in timed.data.train.epoch(0):
                        pass
                run_loop(timed)
            return run.step.module
    finally:
        stop.restore()
        shutil.rmtree(job.folder, ignore_errors=True)


def config_of(job: Job, feed: str) -> Config:
    """As a user would write it."""
    size = str(job.size_px)
    layout = "--execution.channels-last" if job.channels_last else "--execution.no-channels-last"
    compiled = "--execution.compile" if job.compile else "--execution.no-compile"
    graphs = "--execution.cuda-graphs" if job.cuda_graphs else "--execution.no-cuda-graphs"
    return parse_config(
        [
            *("--name", feed, "--run.folder", job.folder, "--run.hang-timeout-s", "0"),
            *(
                "--loader",
                "synthetic" if feed == "resident" else job.loader,
                "--data.path",
                job.packed,
                "--data.eval-split",
                "train",
            ),
            *("--data.batch-size", str(job.batch_size), "--data.workers", str(job.num_workers)),
            *("--data.size-px", size, "--data.eval-size-px", size, "--data.eval-resize-px", size),
            *("--model.name", job.model, "--optim.learning-rate", str(LEARNING_RATE)),
            *("--optim.momentum", str(MOMENTUM), "--optim.weight-decay", str(WEIGHT_DECAY)),
            *("--optim.label-smoothing", str(SMOOTHING), "--optim.schedule", "constant", "--optim.warmup-epochs", "0"),
            *("--execution.device", job.device, "--execution.precision", job.precision),
            *("--execution.threads", str(job.num_threads), layout, compiled, graphs),
        ]
    )
