"""Synthetic WebDataset shards of tiny JPEGs: what packing costs a sample when the samples themselves cost nothing."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NUM_DISTINCT = 1000
SIDE_PX = 16
_SHARD_SAMPLES = 5000


def tiny_jpegs() -> list[bytes]:
    """Distinct JPEGs of 16 × 16 px, the same on every call."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(NUM_DISTINCT):
        file = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    return jpegs


def write_shards(folder: Path, sizes: list[int], advance: Callable[[int], None]) -> dict[int, Path]:
    """For each size a folder of shards with so many samples, in `folder`; `advance` hears of samples written.

    Whole shards are written once and linked into every folder that has them. Files that are there are kept: each takes
    its name only when it is complete.
    """
    jpegs = tiny_jpegs()
    folders = {}
    for size in sorted(sizes, reverse=True):
        folders[size] = folder / f"{size}"
        folders[size].mkdir(parents=True, exist_ok=True)
        for start in range(0, size, _SHARD_SAMPLES):
            stop = min(start + _SHARD_SAMPLES, size)
            path = folders[size] / f"train-{start // _SHARD_SAMPLES:06d}.tar"
            whole = folder / f"{max(sizes)}" / path.name
            if not path.exists():
                if whole.exists() and stop - start == _SHARD_SAMPLES:
                    os.link(whole, path)
                else:
                    _write_shard(path, jpegs, start, stop)
            advance(stop - start)
    return folders


def _write_shard(path: Path, jpegs: list[bytes], start: int, stop: int) -> None:
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in range(start, stop):
            label = index % NUM_DISTINCT
            for suffix, content in ((".jpg", jpegs[label]), (".cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{index:09d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    os.replace(partial, path)
