"""What every format that is written has in common: a row a sample, and places that the first process gives out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..encode import Encoded

# What the first process remembers of each sample; the journal's rows too. Positions of formats not written stay 0.
ROW = np.dtype(
    [
        ("source_index", "<i8"),
        ("label", "<i8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("jpeg_bytes", "<i8"),
        ("beton_position", "<i8"),
        ("shard_position", "<i8"),
        ("raw_position", "<i8"),
        ("seek_bytes", "<i8"),
        ("shard", "<i4"),
        ("beton_is_raw", "<u1"),
        ("is_original", "<u1"),
    ]
)
Rows = NDArray[np.void]


@dataclass(frozen=True)
class Payload:
    """An encoded sample that waits in a worker for its places."""

    encoded: Encoded
    beton_is_raw: bool


class Place(Protocol):
    """Where the samples of one task go in one format; made by the first process, used by a worker."""

    def write(self, payloads: Sequence[Payload]) -> None:
        """Write them. Raises OSError."""
        ...


class Output(Protocol):
    """One split in one format, being written. Its bytes depend on the rows and their order alone."""

    def place(self, rows: Rows, first_number: int) -> Place:
        """Give places to the next samples, numbered from `first_number` on, and note their positions in the rows.

        Raises FeedrateError for a sample that the format cannot hold.
        """
        ...

    def restore(self, rows: Rows) -> None:
        """Begin, or go on after these samples, which a run before has written; whatever lies behind them is cut off."""
        ...

    def paths_of(self, rows: Rows) -> list[Path]:
        """The files that hold these samples."""
        ...

    def finish(self, rows: Rows) -> list[Path]:
        """Write what stands before and behind the samples; returns all files in order. May be called again."""
        ...


def pixel_bytes(rows: Rows) -> NDArray[np.int64]:
    """int64 [N], what each sample takes as RGB."""
    size: NDArray[np.int64] = rows["width"].astype(np.int64) * rows["height"] * 3
    return size


def write_blobs(path: Path, positions: NDArray[np.int64], blobs: Sequence[Any]) -> None:
    """Write each of the bytes-like blobs at its position; neighbours go out together. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        run: list[Any] = []
        start = end = 0
        for position, blob in zip(positions.tolist(), blobs, strict=True):
            if position != end:
                _write_all(descriptor, b"".join(run), start)
                run, start, end = [], position, position
            run.append(blob)
            end += memoryview(blob).nbytes
        _write_all(descriptor, b"".join(run), start)
    finally:
        os.close(descriptor)


def write_at(path: Path, position: int, data: bytes) -> None:
    """Write `data` at `position` of a file, which is made where there is none. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, data, position)
    finally:
        os.close(descriptor)


def cut(path: Path, num_bytes: int) -> None:
    """Give the file this length, made where there is none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(descriptor, num_bytes)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until the file, or the folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    left = memoryview(data)
    while left:
        num_written = os.pwrite(descriptor, left, position)
        left, position = left[num_written:], position + num_written
