"""Runs of the self-test: each group of cells in processes of its own, which open their loader and step once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig
from engine.profiler.self_test.cells import Cell, Outcome
from engine.profiler.self_test.planting import Effort
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError
from tools.benchmarks.process import REPOSITORY, end_group, last_said
from tools.benchmarks.shards import tiny_jpegs

_NUM_IMAGES = 4096
_CLASSES = 4
_SIZE_PX = 16
_IMAGES_PER_STEP = 8  # of a rank


@dataclass(frozen=True)
class Group:
    """Cells that share a loader, a seed and a number of ranks. `data`: of the packed images."""

    data: str
    device: str
    effort: Effort
    cells: tuple[Cell, ...]

    def config(self) -> Config:
        """What is profiled: a small real model on small images, so that what is planted decides."""
        loader, seed, num_ranks = self.cells[0].group
        return Config(
            name="self-test",
            loader=loader,
            seed=seed,
            data=DataConfig(
                path=self.data,
                batch_size=_IMAGES_PER_STEP * num_ranks,
                eval_batch_size_per_rank=_IMAGES_PER_STEP,
                size_px=_SIZE_PX,
                eval_size_px=_SIZE_PX,
                eval_resize_px=_SIZE_PX,
                workers=workers_of(seed, num_ranks),
                batches_ahead=2,
            ),
            model=ModelConfig("timm/test_resnet"),
            execution=ExecutionConfig(device=self.device, threads=1),  # type: ignore[arg-type]
        )

    def as_json(self) -> str:
        """For the process that runs it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Group":
        """What `as_json` gave."""
        data = json.loads(text)
        cells = tuple(Cell(**cell) for cell in data.pop("cells"))
        return cls(**{**data, "cells": cells, "effort": Effort(**data["effort"])})


def workers_of(seed: int, num_ranks: int) -> int:
    """Workers of a rank's loader: one, or with odd seeds two, who share what is planted, where there are processors."""
    return max(1, min(1 + seed % 2, available_cpus() // num_ranks))


def groups_of(cells: Sequence[Cell], data: Path, device: str, effort: Effort) -> list[Group]:
    """In the order of their first cells."""
    groups: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    return [Group(str(data), device, effort, tuple(of_group)) for of_group in groups.values()]


def write_images(folder: Path) -> Path:
    """Small JPEGs in class folders, and packed as every loader reads them; kept for the next time."""
    packed = folder / "packed"
    if not (packed / "manifest.json").exists():
        jpegs = tiny_jpegs()
        for split, count in {"train": _NUM_IMAGES, "val": 4 * _CLASSES}.items():
            for number in range(count):
                path = folder / "images" / split / f"class-{number % _CLASSES}" / f"{number:06d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpegs[number % len(jpegs)])
        words = [
            "tools/convert.py",
            "folder",
            "--source",
            str(folder / "images"),
            "--out",
            str(packed),
            "--to",
            "beton",
        ]
        done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            raise FeedrateError(f"images for the self-test could not be packed: {done.stderr.strip()}")
    return packed


def run(group: Group, log: Path) -> Iterator[Outcome]:
    """Measure its cells in processes of their own; each comes as soon as it is done.

    Raises FeedrateError where these fail; what they said is in `log`.
    """
    num_ranks = group.cells[0].num_ranks
    program = [str(Path(__file__).with_name("self_test_group.py")), group.as_json()]
    if num_ranks > 1:
        program = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", *program]
    with open(log, "a") as errors, _started([sys.executable, *program], errors) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield Outcome.from_json(json.loads(line))
        if process.wait():
            said = last_said(log.read_text(errors="replace"))
            raise FeedrateError(f"cells such as {group.cells[0].key} failed: {said} (all of it is in {log})")


@contextmanager
def _started(command: list[str], errors: IO[str]) -> Iterator["subprocess.Popen[str]"]:
    """However this is left, the process and all it started have ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = None
    try:
        with _interrupts_wait():  # or one in the middle of starting would leave a process that nobody knows
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        yield process
    finally:
        if process is not None:
            end_group(process)
            process.wait()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """What interrupts the block does so behind it."""
    came = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: came.append(True)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if came:
        raise KeyboardInterrupt
