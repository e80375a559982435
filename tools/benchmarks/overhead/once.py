"""Run in a process of its own: train once, with the profiler's clocks or without. Prints one line of JSON.

python once.py JOB

Of all epochs but the first: seconds and processor time an image, of the loop over batches, without each epoch's first
batch and first step; and the SHA-256 of the weights. Without its clocks a run still counts its images and times its
waiting (two looks at the clock a batch), as it always did.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

from engine.build import build_run
from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig, RunConfig
from engine.dist import start_ranks
from engine.loop import Run, train
from engine.profiler.step_clock import NoClock
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from loaders.stage_times import StageTimes
from tools.benchmarks.device.waited import wait_for_the_device
from tools.benchmarks.overhead.job import Job


def main(path: str) -> None:
    """Run the job and print what was measured."""
    job = Job.read(path)
    shutil.rmtree(job.folder, ignore_errors=True)
    make_stage_times: Callable[[int], StageTimes | None] = StageTimes if job.is_timed else lambda num_writers: None
    ranks, stop = start_ranks(job.device, 0.0), StopRequest()
    try:
        with build_run(_config(job), ranks, Display(is_main=False), stop, make_stage_times) as run:
            if not job.is_timed:
                run.step.clock = NoClock()
            wait_for_the_device(run)
            with _cpu_of_epochs(run) as cpu_s:
                assert train(run), "it was stopped"
    finally:
        stop.restore()
    folder = Path(job.folder) / "overhead"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"][1:]
    seconds = sum(epoch["seconds"] - epoch["first_batch_s"] - epoch["first_step_s"] for epoch in epochs)
    num_images = sum(epoch["num_images"] - job.batch_size for epoch in epochs)
    weights = sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    figures = {
        "s_per_image": seconds / num_images,
        "cpu_s_per_image": sum(cpu_s[1:]) / sum(epoch["num_images"] for epoch in epochs),
        "num_images": num_images,
        "weights_sha256": weights,
    }
    print(json.dumps(figures))


def _config(job: Job) -> Config:
    return Config(
        name="overhead",
        loader="turbo",
        epochs=job.epochs,
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
