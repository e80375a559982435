"""airbench94, as its package on PyPI has it: its loop, its loader, its clock."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import airbench
import airbench.utils
import numpy as np
import torch

from loaders.errors import FeedrateError
from loaders.records import Records, open_records

from .cifar_job import CifarJob, CifarRun

_FOLDER = "cifar10"  # where airbench looks, below the working directory


class Airbench:
    """Its `train94` on the same images, put where it looks for them."""

    def __init__(self, job: CifarJob) -> None:
        if job.device != "cuda":
            raise FeedrateError("airbench trains on a CUDA GPU only")
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        for split, name in (("train", "train.pt"), ("val", "test.pt")):
            with contextlib.closing(open_records(job.data, split)) as records:
                write_split(records, Path(_FOLDER) / name)
        hyp = airbench.lib_airbench94.hyp
        self._loader = airbench.CifarLoader(
            _FOLDER, train=True, batch_size=hyp["opt"]["batch_size"], aug=hyp["aug"], altflip=True
        )

    def warm_up(self) -> None:
        """Its own, of one step, and one epoch."""
        with contextlib.redirect_stdout(io.StringIO()):
            airbench.warmup94(self._loader)
            airbench.train94(self._loader, epochs=1, verbose=False)

    def run(self, number: int) -> CifarRun:
        """Train from scratch with torch seeded by `number`."""
        torch.manual_seed(number)
        told: list[dict[str, Any]] = []
        telling = airbench.utils.print_training_details
        airbench.utils.print_training_details = lambda variables, is_final_entry: told.append(dict(variables))
        try:
            airbench.train94(self._loader, run=number, verbose=True)
        finally:
            airbench.utils.print_training_details = telling
        return run_of(told)


def run_of(told: list[dict[str, Any]]) -> CifarRun:
    """From what it would have printed: a line an epoch, and one of the evaluation at the end, whose time is not
    training's. Its clock's sums become differences."""
    *epochs, last = told
    sums = [line["total_time_seconds"] for line in epochs]
    seconds = [now - before for before, now in zip([0.0, *sums[:-1]], sums, strict=True)]
    return CifarRun(seconds, [float(line["val_acc"]) for line in epochs], float(last["tta_val_acc"]))


def write_split(records: Records, path: Path) -> None:
    """uint8 [N, 32, 32, 3] images, int64 [N] labels and the classes' names, as airbench keeps them."""
    images = np.stack([records.read(index).reshape(32, 32, 3) for index in range(len(records))])
    path.parent.mkdir(exist_ok=True)
    kept = {"images": torch.from_numpy(images), "labels": torch.from_numpy(np.asarray(records.labels, dtype=np.int64))}
    torch.save({**kept, "classes": list(records.classes)}, path)
