"""Run in a process of its own: profile one base, predict its changes, measure them. Prints one line of JSON.

python once.py JOB
"""

import dataclasses
import json
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np
import torch

from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig, RunConfig
from engine.dist import Ranks
from engine.profiler.calibration import calibrated_changes, with_batch, with_path, with_workers
from engine.profiler.record import Profile
from engine.profiler.session import Budget, profile
from engine.profiler.trials import Trial, measure_trials
from engine.profiler.what_if import Change, Predictor, hold_out
from loaders.records import open_records
from tools.benchmarks.what_if.job import BASES, Base, Job
from tools.profiling.packed_sample import FORMATS, SomeOf, pack_some, packed_samples, room_for

_RANKS = Ranks(0, 1, 0, 1, torch.device("cpu"))
_CALIBRATION_IMAGES = 256
_MEASURED_IMAGES = 2048


def main(path: str) -> None:
    """Run the job and print what was predicted and measured."""
    job = Job.read(path)
    base = BASES[job.base]
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        config = _stored(_config(base, job), base, stack)
        seconds, budget = 60 * job.minutes, Budget(job.minutes, job.rounds)
        measured = profile(config, _RANKS, budget, {}, _tell)
        changes = _changes(base, config, measured, seconds, job.rounds)
        predicted = [(change, _predicted(measured, change)) for change in changes]
        trials = [Trial("base", config, "loop")]
        trials += [Trial(change.text, _configured(change, config, stack), "loop") for change in changes]
        rates = measure_trials(trials, _RANKS, seconds, job.rounds, _tell)
    ceilings = measured.ceilings
    told: dict[str, Any] = {
        "load_1_min": round(load, 2),
        "profile": {
            "step": ceilings.step.rounds,
            "loader": {str(workers): rate.rounds for workers, rate in ceilings.loader.items()},
            "loop": ceilings.loop.rounds,
            "cpus_used": measured.told.resources.cpus_used,
        },
        "base": rates["base"].rounds,
        "changes": [
            {
                **row,
                "kind": _kind(change),
                "known": {"workers": change.workers, "step": change.step, "loading": change.loading},
                "measured": rates[change.text].rounds,
            }
            for change, row in predicted
        ],
    }
    print(json.dumps(told))


def _config(base: Base, job: Job) -> Config:
    return Config(
        name=job.base,
        loader=base.loader,
        epochs=1,
        data=DataConfig(
            path=str(Path(job.data) / base.data),
            batch_size=base.batch_size,
            eval_batch_size_per_rank=32,
            size_px=base.size_px,
            eval_size_px=base.size_px,
            eval_resize_px=base.size_px,
            workers=base.num_workers,
            page_cache="memory",
        ),
        model=ModelConfig("cifar_resnet20"),
        optim=OptimConfig(learning_rate=0.01),
        execution=ExecutionConfig(device="cpu", threads=base.num_threads),
        run=RunConfig(folder=job.folder),
    )


def _stored(config: Config, base: Base, stack: ExitStack) -> Config:
    """The same over the base's images, packed for as long as `stack` lasts."""
    encoding = FORMATS[base.stored].encoding
    with closing(open_records(config.data.path, config.data.train_split)) as records:
        ids = np.tile(np.arange(len(records), dtype=np.int64), base.repeat)
        some = SomeOf(records, ids)
        folder = stack.enter_context(room_for(3 * int((some.widths.astype(np.int64) * some.heights).sum())))
        pack_some(some, folder / "base", encoding, config)
    return with_path(config, str(folder / "base"))


def _packed(config: Config, name: str, stack: ExitStack) -> Config:
    """The same over images packed in that format for as long as `stack` lasts."""
    samples, refused = stack.enter_context(packed_samples(config, [name], _MEASURED_IMAGES))
    assert samples is not None, refused
    return with_path(config, samples.formats[name].path)


def _changes(base: Base, config: Config, measured: Profile, seconds: float, rounds: int) -> list[Change]:
    """Those of the base, with what short turns of one side alone tell of them."""
    found = [
        Change(f"{number} worker{'s' * (number > 1)}", {"data.workers": number}, workers=number)
        for number in base.workers
    ]
    with packed_samples(config, base.formats, _CALIBRATION_IMAGES) as (samples, _):
        calibrated, refused = calibrated_changes(measured, config, _RANKS, samples, seconds, rounds, _tell)
    print(*refused, sep="\n", file=sys.stderr)
    wanted = [{"data.batch_size": size} for size in base.batches] + [{"loader": name} for name in base.loaders]
    found += [change for change in calibrated if change.settings in wanted or change.format in base.formats]
    return found


def _predicted(measured: Profile, change: Change) -> dict[str, Any]:
    """From a profile that holds nothing measured with the change's number of workers."""
    known = measured if change.workers is None else hold_out(measured, change.workers)
    row = Predictor(known).predict(change)
    now = measured.ceilings.loop.median
    return {"change": row.change, "predicted": row.predicted, "low": row.low, "high": row.high, "now": now}


def _configured(change: Change, config: Config, stack: ExitStack) -> Config:
    if change.format:
        return _packed(config, change.format, stack)
    if change.workers is not None:
        return with_workers(config, change.workers)
    if "loader" in change.settings:
        return dataclasses.replace(config, loader=str(change.settings["loader"]))
    return with_batch(config, int(change.settings["data.batch_size"]))


def _kind(change: Change) -> str:
    if change.format:
        return "format"
    return {"data.workers": "workers", "data.batch_size": "batch", "loader": "loader"}[next(iter(change.settings))]


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
