"""`runs/<name>/`: what a run leaves behind.

config.toml     every setting, resolved
env.json        versions, commit, hardware, and where the run was started
metrics.jsonl   one JSON object a line: kind "step" or "epoch"
metrics.csv     the epochs of it, and tensorboard/ where asked for: see loggers.py
evaluation.json the newest evaluation: counts of each class; confusion.npy is its confusion matrix, int64 [C, C],
                row: what an image is, column: what it is taken for; evaluation-ema.json and so on are of averages
bad-samples.jsonl  samples that could not be delivered and were substituted: one line for each
checkpoints/    see checkpoint.py
best.json       the best epoch so far: metric, value, epoch, step and its checkpoint
weights.safetensors, weights-best.safetensors  at the end, and of the best epoch: see weights.py
ids-rank<r>.i64 the sample ids trained on, where asked for
not-finite-rank<r>.txt  the sample ids of the batch whose loss was no number, where they are many
run.lock        held while a run writes here: see safeguards/run_lock.py
"""

import dataclasses
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch import nn

from loaders.api import Substitution
from loaders.atomic import PARTIAL_SUFFIX, atomic_file
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError

from ..checkpointing.checkpoint import checkpoints_by_step, fault_of, path_of
from ..config import Config
from ..evaluate import Evaluation
from .loggers import MetricsLogger
from .prediction_sample import PredictionSample
from .writing import writing

_ID_BYTES = 8
_PACKAGES = (
    *("feedrate", "torch", "torchvision", "timm", "numpy", "simplejpeg", "opencv-python-headless", "pillow"),
    *("ffcv", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
)

# what a clock or a meter read: two identical runs differ in these and in nothing else
CLOCK_FIELDS = (
    *("seconds", "images_per_s", "steady_images_per_s", "data_wait_share", "first_batch_s", "first_step_s"),
    *("warm_up_s", "inference_s_per_image", "first_inference_s", "resources"),
    *("time_wall_s", "time_shares", "time_of_ranks_s"),
)


class RunFolder:
    """The files of one run. Every rank has one; only the main rank's writes, apart from each rank's own ids.

    RunLock makes the folder, once all that could be wrong with a run has been checked. Whatever writes raises
    FeedrateError where the disk does not take it, on the rank that writes: `Ranks.together` tells the others.
    """

    def __init__(
        self,
        path: Path,
        writes: bool,
        loggers: Sequence[MetricsLogger] = (),
        refuse_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`refuse_lost` raises FeedrateError where this folder is not the one that the run began to write to."""
        self.path = path
        self._writes = writes
        self._loggers = loggers if writes else ()
        self._refuse_lost = refuse_lost

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def newest(self) -> Path | None:
        """The newest checkpoint by its name."""
        return next(iter(checkpoints_by_step(self.checkpoints)), None)

    def newest_sound(self) -> Path | None:
        """The newest checkpoint whose bytes are those that were written."""
        return next((path for path in checkpoints_by_step(self.checkpoints) if fault_of(path) is None), None)

    def newest_name(self) -> str:
        """The same for whoever asks in words."""
        return str(self.newest() or "not there yet")

    def write_best(self, found: dict[str, Any]) -> None:
        """Write best.json: what `Best.found` says, and the checkpoint of that epoch. Of no best there is none."""
        if not found:
            with writing(self.path / "best.json"):
                (self.path / "best.json").unlink(missing_ok=True)
            return
        content = found | {"checkpoint": path_of(self.checkpoints, found["step"]).name}
        self._replace("best.json", json.dumps(content, indent=2).encode() + b"\n")

    def open(self, config: Config) -> None:
        """Write config.toml and env.json into the folder, which is there, and remove what was left half written."""
        if not self._writes:
            return
        for unfinished in self.path.glob(f"*{PARTIAL_SUFFIX}"):
            with writing(unfinished):
                unfinished.unlink(missing_ok=True)
        self._replace("config.toml", tomli_w.dumps(dataclasses.asdict(config)).encode())
        self._replace("env.json", json.dumps(environment(), indent=2).encode() + b"\n")

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and tell the loggers."""
        if self._writes:
            self._refuse_lost()
            with writing(self._metrics), open(self._metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        with writing(self.path):
            for logger in self._loggers:
                logger.log(record)

    def log_evaluation(
        self, epoch: int, evaluation: Evaluation, classes: tuple[str, ...], name: str = "evaluation"
    ) -> None:
        """Replace NAME.json, and confusion.npy beside it (NAME-confusion.npy for a name of its own)."""
        if not self._writes:
            return
        report = {"epoch": epoch, **evaluation.report(classes)}
        self._replace(f"{name}.json", json.dumps(report, indent=1).encode() + b"\n")
        if evaluation.classes.confusion is not None:
            matrix = io.BytesIO()
            np.save(matrix, evaluation.classes.confusion)
            prefix = "" if name == "evaluation" else f"{name}-"
            self._replace(f"{prefix}confusion.npy", matrix.getvalue())

    def observe(self, epoch: int, model: nn.Module, sample: PredictionSample, classes: tuple[str, ...]) -> None:
        """Show the loggers the model after an epoch, and some of its answers."""
        with writing(self.path):
            for logger in self._loggers:
                logger.observe(epoch, model, sample, classes)

    def metrics_bytes(self) -> dict[str, int]:
        """The sizes of all logs that grow, by their names, which a checkpoint stores. They are then on the disk."""
        if not self._writes:
            return {}
        self._refuse_lost()
        with writing(self.path):
            for logger in self._loggers:
                logger.flush()
        sizes = {}
        for path in self._growing_logs():
            with writing(path), open(path, "rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return sizes

    def cut_metrics(self, sizes: dict[str, int]) -> None:
        """Forget what was logged after the checkpoint that the run goes on from; without one, `sizes` is empty."""
        if not self._writes:
            return
        for path in self._growing_logs():
            name = path.relative_to(self.path).as_posix()
            with writing(path):
                if name not in sizes:
                    path.unlink()
                elif path.stat().st_size > sizes[name]:
                    os.truncate(path, sizes[name])
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        with writing(self.path):
            for logger in self._loggers:
                logger.begin([json.loads(line) for line in lines])

    def close(self) -> None:
        """Write what loggers still hold. Idempotent."""
        with writing(self.path):
            for logger in self._loggers:
                logger.close()

    def _replace(self, name: str, content: bytes) -> None:
        path = self.path / name
        with writing(path), atomic_file(path) as file:
            file.write(content)

    def _growing_logs(self) -> list[Path]:
        """Whether or not this run has the loggers that write them: it may have had them before, and will again."""
        candidates = [self._metrics, *sorted((self.path / "tensorboard").glob("events.*"))]
        return [path for path in candidates if path.exists()]

    @property
    def bad_samples(self) -> Path:
        return self.path / "bad-samples.jsonl"

    def log_bad_samples(self, substitutions: list[Substitution]) -> None:
        """Append those samples to bad-samples.jsonl that it does not hold yet.

        It is not cut back when a run goes on from a checkpoint: a bad sample stays one.
        """
        if not (self._writes and substitutions):
            return
        old = self.bad_samples.read_bytes() if self.bad_samples.exists() else b""
        listed = {json.loads(line)["id"] for line in old.splitlines()}
        new = [
            {"id": entry.bad_id, "substitute": entry.id, "reason": entry.reason}
            for entry in substitutions
            if entry.bad_id not in listed
        ]
        self._replace(self.bad_samples.name, old + b"".join(json.dumps(line).encode() + b"\n" for line in new))

    def ids_path(self, rank: int) -> Path:
        return self.path / f"ids-rank{rank}.i64"

    def log_ids(self, rank: int, ids: torch.Tensor) -> None:
        """Append int64 [B] ids to this rank's file."""
        with writing(self.ids_path(rank)), open(self.ids_path(rank), "ab") as file:
            file.write(ids.numpy().astype("<i8").tobytes())

    def refuse_short_ids(self, rank: int, num_ids: int) -> None:
        """Raise FeedrateError where this rank's file holds fewer ids than the run has got to: there would be a gap."""
        path = self.ids_path(rank)
        there = path.stat().st_size // _ID_BYTES if path.exists() else 0
        if there < num_ids:
            holds = f"holds {there} sample ids" if path.exists() else "is not there"
            raise FeedrateError(
                f"{path} {holds} and the run stands after {num_ids}, since they were not always written, or by another"
                " number of ranks: go on without --run.log-ids, or begin another run by --name"
            )

    def cut_ids(self, rank: int, num_ids: int) -> None:
        """Forget the ids that were logged after the checkpoint that the run goes on from, which had so many."""
        path, num_bytes = self.ids_path(rank), num_ids * _ID_BYTES
        if path.exists() and path.stat().st_size > num_bytes:
            with writing(path):
                os.truncate(path, num_bytes)

    def remove_ids(self) -> None:
        """Those of a run that was here before this one."""
        for pattern in ("ids-rank*.i64", "not-finite-rank*.txt"):
            for path in self.path.glob(pattern):
                with writing(path):
                    path.unlink()

    def sync_ids(self, rank: int) -> None:
        """Have the ids that were logged on the disk: a checkpoint counts on them."""
        if self.ids_path(rank).exists():
            with writing(self.ids_path(rank)), open(self.ids_path(rank), "rb") as file:
                os.fsync(file.fileno())


def environment() -> dict[str, Any]:
    """Versions, commit and hardware, for whoever wants to repeat a run."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": sys.argv,
        "working_directory": str(Path.cwd()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "commit": _commit(),
        "cpus": available_cpus(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "torch_cuda": torch.version.cuda,
    }


def _commit() -> str:
    """The commit of this source tree, with a mark where the tree differs from it; empty where git knows nothing."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
