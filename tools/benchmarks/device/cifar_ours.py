"""Ours: a preset trained from scratch, in this process, again and again."""

import shutil
from dataclasses import replace
from pathlib import Path

from engine.build import build_run
from engine.command_line import parse_config
from engine.config import Config
from engine.dist import start_ranks
from engine.loop import train
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest

from .. import json_lines
from ..telling import Stopped
from .cifar_job import CifarJob, CifarRun

_ACCURACIES = ("eval_ema_top1", "eval_top1")  # the first that a run tells


class Ours:
    """A preset with the job's options; each run has its own seed."""

    def __init__(self, job: CifarJob) -> None:
        self._job = job
        self._ranks = start_ranks(job.device, 0.0)
        self._config = parse_config(
            [
                *("--config", "cifar10_fast", "--loader", "resident", "--execution.device", job.device),
                *("--data.path", job.data, "--run.folder", job.folder, "--run.hang-timeout-s", "0"),
                *("--run.checkpoint-every-epochs", "0", "--run.best-metric", "none", "--run.resume", "never"),
                *job.options,
            ]
        )

    def warm_up(self) -> None:
        """One epoch: kernels are chosen, and compiled where that is asked for."""
        self._train(replace(self._config, epochs=1, name="warm-up"))

    def run(self, number: int) -> CifarRun:
        """Train from scratch with seed `number`."""
        return self._train(replace(self._config, seed=number, name=f"run-{number}"))

    def _train(self, config: Config) -> CifarRun:
        stop = StopRequest()
        try:
            with build_run(config, self._ranks, Display(is_main=False), stop) as run:
                if not train(run):
                    raise Stopped("the run was stopped")
        finally:
            stop.restore()
        folder = Path(config.run.folder) / config.name
        epochs = json_lines.by_kind(folder / "metrics.jsonl")["epoch"]
        shutil.rmtree(folder)
        name = next(name for name in _ACCURACIES if name in epochs[0])
        accuracy = [epoch[name] for epoch in epochs]
        return CifarRun([epoch["seconds"] for epoch in epochs], accuracy, accuracy[-1])
