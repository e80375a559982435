"""A training script with a bottleneck planted in it, in a process of its own; or the profile of its configuration.

python once.py JOB                            watched by ours or by torch.profiler
traceml run once.py --args JOB                by TraceML
torchrun --nproc-per-node=2 once.py JOB       on two ranks
"""

import itertools
import json
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch

from engine.build import build_step
from engine.channels import channels_of
from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig
from engine.data import loader_options, plan_of
from engine.dist import Ranks, start_ranks, stop_ranks
from engine.profiler.measure import measure
from engine.profiler.session import opened
from loaders.choose import open_loader
from loaders.records import open_records
from loaders.stage_times import StageTimes
from tools.benchmarks.profilers.cases import CASES, Job
from tools.benchmarks.profilers.planting import plant_in_loader, plant_in_step, spender
from tools.benchmarks.profilers.watchers import WATCHERS

_LOADER = "torchvision"  # torch's DataLoader, which everybody knows


def main(path: str) -> None:
    """Run the job, and write what was told."""
    job = Job.read(path)
    ranks = start_ranks("cpu")
    try:
        told = (_profiled if job.watcher == "profile" else _trained)(job, ranks)
        if ranks.is_main:
            Path(job.result).write_text(json.dumps(told))
    finally:
        stop_ranks()


def _trained(job: Job, ranks: Ranks) -> dict[str, Any]:
    case, config = CASES[job.case], _config(job)
    with closing(open_records(job.data, "train")) as records:
        plan, times = plan_of(records, config), StageTimes(case.num_workers + 1)
        options = replace(loader_options(config.data, ranks), stage_times=times)
        num_classes, num_batches = len(records.classes), plan.num_batches(ranks.world_size)
        with closing(open_loader(_LOADER, records, plan, options)) as loader:
            step = build_step(config, ranks, num_classes, channels_of(records), num_batches)
            step.module.train()
            step.warm_up(torch.Size((job.batch_size_per_rank, 3, job.size_px, job.size_px)), num_classes)
            torch.set_num_threads(1)
            plant_in_loader(case, times)
            plant_in_step(case, step, job.batch_size_per_rank, ranks.rank)
            wait_in_loop = spender(case, job.batch_size_per_rank) if case.side == "host" else nullcontext
            watcher = WATCHERS[job.watcher](step, times, ranks)
            batches = itertools.islice(loader.epoch(0), job.num_steps)
            with watcher.loop():
                for number, batch in enumerate(watcher.batches(batches)):
                    with watcher.step():
                        step(batch.images, batch.labels, batch.ids, number)
                        wait_in_loop()
            return watcher.told()


def _profiled(job: Job, ranks: Ranks) -> dict[str, Any]:
    """What `tools/profile.py` says of the same configuration with the same delays."""
    case, config = CASES[job.case], _config(job)
    with opened(config, ranks, lambda text: None) as bench:
        plant_in_step(case, bench.step, job.batch_size_per_rank, ranks.rank)
        really_open = bench.feed.open

        def open_planted(workers: int, device: torch.device | None = None) -> None:
            really_open(workers, device)
            plant_in_loader(case, bench.feed.stage_times)

        bench.feed.open = open_planted  # type: ignore[method-assign]
        bench.feed.open(case.num_workers)
        rates = measure(bench.experiments(), ranks, 60 * job.minutes, job.num_rounds, lambda text: None)
        verdict = bench.judged(rates, {}).verdict
    advice = [item.text for item in verdict.advice]
    return {
        "bottleneck": verdict.bottleneck,
        "side": verdict.side,
        "slow_rank": verdict.slow_rank,
        "sentence": verdict.sentence,
        "advice": advice,
    }


def _config(job: Job) -> Config:
    case = CASES[job.case]
    return Config(
        loader=_LOADER,
        data=DataConfig(
            path=job.data,
            batch_size=job.batch_size_per_rank * case.num_ranks,
            size_px=job.size_px,
            workers=case.num_workers,
            page_cache="memory",
        ),
        model=ModelConfig("timm/test_resnet"),
        optim=OptimConfig(learning_rate=0.01),
        execution=ExecutionConfig(device="cpu", threads=1),
    )


if __name__ == "__main__":
    main(sys.argv[-1])
