"""Writes WebDataset shards: plain tar files of pairs NNNNNNNNN.jpg, NNNNNNNNN.cls, and DALI's index of each."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.shard_layout import BLOCK_BYTES, LABEL_BYTES, header, image_name, label_name, padded

from .outputs import Payload, Rows, cut, write_at, write_blobs

SHARD_BYTES = 256 << 20
_RECORD = 20 * BLOCK_BYTES  # what a whole tar file is padded to


@dataclass(frozen=True)
class ShardPlace:
    """See `outputs.Place`. `shards`, `positions` (of the images' bytes) and `labels`: int64 [N]."""

    folder: Path
    split: str
    first_number: int
    shards: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]

    def write(self, payloads: Sequence[Payload]) -> None:
        """Write the samples' members, headers and padding included."""
        blobs = [
            _members(self.first_number + i, payload.encoded.jpeg or b"", label)
            for i, (payload, label) in enumerate(zip(payloads, self.labels.tolist(), strict=True))
        ]
        for shard in np.unique(self.shards).tolist():
            chosen = np.flatnonzero(self.shards == shard)
            path = self.folder / shard_name(self.split, shard)
            write_blobs(path, self.positions[chosen] - BLOCK_BYTES, [blobs[i] for i in chosen.tolist()])


class ShardOutput:
    """See `outputs.Output`. A shard ends before it would exceed `shard_bytes`, but holds one sample at least."""

    def __init__(self, folder: Path, split: str, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._split = split
        self._shard_bytes = shard_bytes
        self._shard, self._position = 0, 0

    def place(self, rows: Rows, first_number: int) -> ShardPlace:
        """See `outputs.Output`."""
        for row, size in zip(rows, _member_bytes(rows).tolist(), strict=True):
            if self._position and self._position + size + _RECORD > self._shard_bytes:
                self._shard, self._position = self._shard + 1, 0
                cut(self._path(self._shard), 0)
            row["shard"], row["shard_position"] = self._shard, self._position + BLOCK_BYTES
            self._position += size
        return ShardPlace(
            self._folder,
            self._split,
            first_number,
            rows["shard"].astype(np.int64),
            rows["shard_position"].copy(),
            rows["label"].copy(),
        )

    def restore(self, rows: Rows) -> None:
        """See `outputs.Output`."""
        self._shard, self._position = 0, 0
        if len(rows):
            self._shard = int(rows["shard"][-1])
            self._position = int(rows["shard_position"][-1] - BLOCK_BYTES + _member_bytes(rows[-1:])[0])
        cut(self._path(self._shard), self._position)
        shard = self._shard + 1
        while self._path(shard).exists():
            self._path(shard).unlink()
            shard += 1

    def paths_of(self, rows: Rows) -> list[Path]:
        """See `outputs.Output`."""
        return [self._path(shard) for shard in np.unique(rows["shard"]).tolist()]

    def finish(self, rows: Rows) -> list[Path]:
        """End each tar file with zeros, as the format wants, and write its index."""
        paths = []
        borders = np.searchsorted(rows["shard"], np.arange(self._shard + 2))
        for shard, (start, stop) in enumerate(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)):
            part = rows[start:stop]
            end = int(part["shard_position"][-1] - BLOCK_BYTES + _member_bytes(part[-1:])[0]) if len(part) else 0
            path = self._path(shard)
            os.truncate(path, -(-(end + 2 * BLOCK_BYTES) // _RECORD) * _RECORD)
            index = path.with_suffix(".idx")
            cut(index, 0)
            lines = index_lines(start, part["shard_position"], part["jpeg_bytes"], part["label"])
            write_at(index, 0, "".join(f"{line}\n" for line in lines).encode())
            paths += [path, index]
        return paths

    def _path(self, shard: int) -> Path:
        return self._folder / shard_name(self._split, shard)


def shard_name(split: str, shard: int) -> str:
    """The name of a shard's tar file."""
    return f"{split}-{shard:06d}.tar"


def _members(number: int, jpeg: bytes, label: int) -> bytes:
    """Both members of a sample, with the padding each needs."""
    text = str(label).encode()
    return b"".join(
        (
            header(image_name(number), len(jpeg)),
            jpeg,
            bytes(-len(jpeg) % BLOCK_BYTES),
            header(label_name(number), len(text)),
            text.ljust(BLOCK_BYTES, b"\0"),
        )
    )


def _member_bytes(rows: Rows) -> NDArray[np.int64]:
    """int64 [N], what each sample takes in a tar file."""
    size: NDArray[np.int64] = BLOCK_BYTES + padded(rows["jpeg_bytes"]) + LABEL_BYTES
    return size


def index_lines(
    first_number: int, positions: NDArray[np.int64], sizes: NDArray[np.int64], labels: NDArray[np.int64]
) -> Iterator[str]:
    """What DALI's `wds2idx` would write about a shard, version 1.2, line by line.

    first_number  of its samples;  positions, sizes   int64 [n], where in the .tar their images lie
    """
    yield f"v1.2 {len(positions)}"
    columns = positions.tolist(), sizes.tolist(), labels.tolist()
    for number, (position, size, label) in enumerate(zip(*columns, strict=True), start=first_number):
        label_position = position + padded(size) + BLOCK_BYTES
        image, described = image_name(number), label_name(number)
        yield f"jpg {position} {size} {image} cls {label_position} {len(str(label))} {described}"
