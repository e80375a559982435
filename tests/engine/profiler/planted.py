"""Configurations with a bottleneck put in on purpose, and their profile.

As a program: under torchrun, with one slow rank.

torchrun --nproc-per-node=2 planted.py IMAGES FOLDER STAGE
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parents[2])]

import torch
from short_runs import short_config

from engine.dist import end_process, start_ranks
from engine.profiler import session
from engine.profiler.session import Budget
from loaders.epochs import EpochLoader
from loaders.folder_records import open_split

SLOW_READ_S = 0.06
SLOW_STEP_S = 0.4
SLOW_BATCH_S = 0.3
BUDGET = Budget(minutes=0.1, rounds=3)


def slow_records(path, split):
    """The images of a folder, each of which takes long to read and no processor meanwhile."""
    records = open_split(Path(path), split, None)
    read = records.read

    def slowly(index):
        time.sleep(SLOW_READ_S)
        return read(index)

    records.read = slowly
    return records


class SlowLoader(EpochLoader):
    """A loader as somebody might write it: it sleeps for its pixels, and notes nothing but how it assembles a batch."""

    name = "planted:SlowLoader"
    resize_modes = ("area",)

    def _batches(self, epoch, start):
        for number in range(start, len(self)):
            time.sleep(SLOW_BATCH_S)
            rows = self._rows(epoch, number)
            yield self._batch(torch.zeros(len(rows), rows.size_px, rows.size_px, 3, dtype=torch.uint8), rows)


def slow_forward(build_step):
    """`build_step`, whose model takes long to go forward."""

    def build(*arguments, **more):
        step = build_step(*arguments, **more)
        step.module.register_forward_pre_hook(lambda *_: time.sleep(SLOW_STEP_S))
        return step

    return build


def slow_optimizer(build_step):
    """`build_step`, whose optimizer takes long."""

    def build(*arguments, **more):
        step = build_step(*arguments, **more)
        step.optimizer.register_step_pre_hook(lambda *_: time.sleep(SLOW_STEP_S))
        return step

    return build


def config_of(images, folder, workers=1, **changes):
    config = short_config(images, folder, **changes)
    return replace(config, data=replace(config.data, workers=workers, size_px=8))


def main(images, folder, stage):
    ranks = start_ranks("cpu")
    if ranks.rank == 1:
        session.build_step = {"forward": slow_forward, "optimizer": slow_optimizer}[stage](session.build_step)
    config = config_of(images, folder)
    config = replace(config, data=replace(config.data, batch_size=8))
    verdict = session.profile(config, ranks, BUDGET, {}, lambda text: None).verdict
    Path(folder, f"rank-{ranks.rank}.json").write_text(
        json.dumps([verdict.slow_rank, verdict.bottleneck, verdict.side, verdict.sentence])
    )
    return 0


if __name__ == "__main__":
    end_process(main(*sys.argv[1:]))
