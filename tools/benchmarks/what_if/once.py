"""Run in a process of its own: profile one base, predict its changes, measure them. Prints one line of JSON.

python once.py JOB
"""

import dataclasses
import json
import os
import signal
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np
import torch

from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig, RunConfig
from engine.dist import Ranks
from engine.profiler.calibration import THE_LOADER, THE_STEP, Calibration, with_batch, with_path, with_workers
from engine.profiler.record import Profile
from engine.profiler.session import Budget, profile
from engine.profiler.trials import Trial, measure_trials
from engine.profiler.what_if import Change, Predictor, hold_out
from loaders.errors import FeedrateError
from loaders.records import open_records
from tools.benchmarks.what_if.job import BASES, Base, Job
from tools.profiling.packed_sample import FORMATS, SomeOf, pack_some, packed_samples, room_for

Key = tuple[str, Any]  # ("workers", 3)

_RANKS = Ranks(0, 1, 0, 1, torch.device("cpu"))
_RECORD_MINUTES = 0.1  # for what a profile holds beside rates
_CALIBRATION_IMAGES = 256
_MEASURED_IMAGES = 2048


def main(path: str) -> None:
    """Run the job and print what was predicted and measured."""
    job = Job.read(path)
    base = BASES[job.base]
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        config = _stored(_config(base, job), base, stack)
        record = profile(config, _RANKS, Budget(_RECORD_MINUTES, 2), {}, _tell)
        samples, _ = stack.enter_context(packed_samples(config, base.formats, _CALIBRATION_IMAGES))
        calibration = Calibration(record, config, samples)
        trials = [trial for trial in calibration.trials if _is_wanted(trial.name, base)]
        trials += [Trial(f"workers {number}", with_workers(config, number), "loader") for number in _sweep(base)]
        loops = {"base": config, **{text: _configured(key, config, stack) for text, key in _targets(base).items()}}
        trials += [Trial(f"loop: {text}", changed, "loop") for text, changed in loops.items()]
        rates, failed = measure_trials(trials, _RANKS, 60 * job.minutes, job.rounds, _tell)
        if failed:
            raise FeedrateError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
        sides = {number: rates[f"workers {number}"] for number in _sweep(base)} | {base.num_workers: rates[THE_LOADER]}
        ceilings = dataclasses.replace(record.ceilings, step=rates[THE_STEP], loader=sides, loop=rates["loop: base"])
        measured = dataclasses.replace(record, ceilings=ceilings)
        wanted = _targets(base).values()
        changes = [
            Change(f"{number} worker{'s' * (number > 1)}", {"data.workers": number}, workers=number)
            for number in base.workers
        ]
        changes += [change for change in calibration.changes(rates) if _key(change) in wanted]
        predicted = [(change, _predicted(measured, change)) for change in changes]
        names = {key: f"loop: {text}" for text, key in _targets(base).items()}
    told: dict[str, Any] = {
        "load_1_min": round(load, 2),
        "profile": {
            "step": ceilings.step.rounds,
            "loader": {str(workers): rate.rounds for workers, rate in ceilings.loader.items()},
            "loop": ceilings.loop.rounds,
            "cpus_used": measured.shown_rank.resources.cpus_used,
        },
        "base": rates["loop: base"].rounds,
        "changes": [
            {
                **row,
                "kind": _key(change)[0],
                "known": {"workers": change.workers, "step": change.step, "loading": change.loading},
                "measured": rates[names[_key(change)]].rounds,
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


def _sweep(base: Base) -> list[int]:
    """The numbers of workers that tools/profile.py would measure on two processors, beside the base's own."""
    return [number for number in (1, 2) if number != base.num_workers]


def _targets(base: Base) -> dict[str, Key]:
    """What is changed, by name."""
    keys: list[Key] = [("workers", number) for number in base.workers]
    keys += [("batch", size) for size in base.batches]
    keys += [("format", name) for name in base.formats]
    keys += [("loader", name) for name in base.loaders]
    return {f"{kind} {value}": (kind, value) for kind, value in keys}


def _is_wanted(name: str, base: Base) -> bool:
    """Whether a trial serves a target; those of now always do."""
    return name in (THE_STEP, THE_LOADER, "format now", *_targets(base))


def _predicted(measured: Profile, change: Change) -> dict[str, Any]:
    """From a profile that holds nothing measured with the change's number of workers."""
    known = measured if change.workers is None else hold_out(measured, change.workers)
    row = Predictor(known).predict(change)
    now = measured.ceilings.loop.median
    return {"change": row.change, "predicted": row.predicted, "low": row.low, "high": row.high, "now": now}


def _configured(key: Key, config: Config, stack: ExitStack) -> Config:
    kind, value = key
    if kind == "format":
        return _packed(config, str(value), stack)
    if kind == "workers":
        return with_workers(config, int(value))
    if kind == "loader":
        return dataclasses.replace(config, loader=str(value))
    return with_batch(config, int(value))


def _key(change: Change) -> Key:
    if change.format:
        return "format", change.format
    ((name, value),) = change.settings.items()
    return {"data.workers": "workers", "data.batch_size": "batch", "loader": "loader"}[name], value


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was packed is removed then, too
    main(sys.argv[1])
