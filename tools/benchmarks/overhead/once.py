"""Run in a process of its own: train with the profiler's clocks and without, in turns. Prints one line of JSON.

python once.py JOB

A turn is an epoch of one and the same run: its loader and its step's clock are changed from epoch to epoch. Of each:
seconds an image of the loop over batches, without the epoch's first batch and first step, and processor time an image
of the whole loop, loading threads and all. And the SHA-256 of the weights. Without its clocks a run still counts its
images and times its waiting, and its log lines read what is there: what these cost is counted (counting.py).
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

import torch

from engine.build import build_run
from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig, RunConfig
from engine.data import loader_options, plan_of
from engine.dist import Ranks, start_ranks
from engine.loop import Run, train
from engine.profiler.step_clock import NoClock, StepClock, step_clock
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from loaders.api import BatchIterator, Loader, LoaderOptions
from loaders.choose import open_loader
from loaders.records import open_records
from loaders.stage_times import StageTimes
from tools.benchmarks import json_lines
from tools.benchmarks.overhead.counting import count_costs
from tools.benchmarks.overhead.job import Job

_LOADER = "turbo"


def main(path: str) -> None:
    """Run the job and print what was measured."""
    job = Job.read(path)
    config, ranks = _config(job), start_ranks(job.device, 0.0)
    with closing(open_records(job.data, "train")) as records:
        plan, options = plan_of(records, config), loader_options(config.data, ranks)
        with _both_loaders(lambda options: open_loader(_LOADER, records, plan, options), options, ranks) as loaders:
            torch.set_num_threads(job.num_threads)
            print(
                json.dumps(
                    count_costs(*loaders, job.pairs, job.device) if job.counts else _train(job, config, ranks, *loaders)
                )
            )


@contextmanager
def _both_loaders(open_with: Any, options: LoaderOptions, ranks: Ranks) -> Iterator[tuple[Loader, Loader]]:
    """With what notes its stages, and without."""
    times = StageTimes(1 + (options.num_workers or ranks.cpus))
    with closing(open_with(replace(options, stage_times=times))) as timed, closing(open_with(options)) as bare:
        yield timed, bare


def _train(job: Job, config: Config, ranks: Ranks, timed: Loader, bare: Loader) -> dict[str, Any]:
    shutil.rmtree(job.folder, ignore_errors=True)
    stop = StopRequest()
    try:
        with build_run(config, ranks, Display(is_main=False), stop) as run:
            turns = _Turns(job, run, timed, bare)
            run = replace(run, data=replace(run.data, train=turns))
            with _cpu_of_epochs(run) as cpu_s:
                assert train(run), "it was stopped"
    finally:
        stop.restore()
    folder = Path(job.folder) / config.name
    epochs = json_lines.by_kind(folder / "metrics.jsonl")["epoch"]
    sides: dict[str, list[dict[str, float]]] = {"timed": [], "bare": []}
    for line, cpu in zip(epochs, cpu_s, strict=True):
        if line["epoch"] < 2:
            continue
        seconds = line["seconds"] - line["first_batch_s"] - line["first_step_s"]
        figures = {
            "s_per_image": seconds / (line["num_images"] - job.batch_size),
            "cpu_s_per_image": cpu / line["num_images"],
        }
        sides["timed" if job.is_timed(line["epoch"]) else "bare"].append(figures)
    weights = sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    return {"sides": sides, "weights_sha256": weights}


class _Turns:
    """The training loader of a run: of each epoch the one with clocks, its step's clock too, or the one without."""

    def __init__(self, job: Job, run: Run, timed: Loader, bare: Loader) -> None:
        self.name = timed.name
        self._job = job
        self._step = run.step
        self._sides: dict[bool, tuple[Loader, StepClock]] = {
            True: (timed, step_clock(job.device)),
            False: (bare, NoClock()),
        }

    def __len__(self) -> int:
        return len(self._sides[True][0])

    def epoch(self, index: int, start: int = 0) -> BatchIterator:
        loader, self._step.clock = self._sides[self._job.is_timed(index)]
        return loader.epoch(index, start)

    def identity(self) -> dict[str, Any]:
        return self._sides[True][0].identity()

    def close(self) -> None:
        """Who opened them closes them."""


def _config(job: Job) -> Config:
    return Config(
        name="overhead",
        loader=_LOADER,
        epochs=2 * job.pairs + 2,
        data=DataConfig(
            path=job.data,
            batch_size=job.batch_size,
            eval_batch_size_per_rank=32,
            size_px=job.size_px,
            eval_size_px=job.size_px,
            eval_resize_px=job.size_px,
            workers=job.num_workers,
        ),
        model=ModelConfig("cifar_resnet20"),
        optim=OptimConfig(learning_rate=0.01, clip_norm=1.0),
        execution=ExecutionConfig(device=job.device, threads=job.num_threads, deterministic=job.device == "cuda"),
        run=RunConfig(folder=job.folder, checkpoint_every_epochs=0, best_metric="none"),
    )


@contextmanager
def _cpu_of_epochs(run: Run) -> Iterator[list[float]]:
    """The processor time of each epoch's loop over batches, loading threads and all."""
    taken: list[float] = []
    training = run.time.training

    @contextmanager
    def timed(meter: Any) -> Iterator[None]:
        before = time.process_time()
        with training(meter):
            yield
        taken.append(time.process_time() - before)

    run.time.training = timed  # type: ignore[method-assign]
    yield taken


if __name__ == "__main__":
    main(sys.argv[1])
