"""The samples of a split in tasks for `image_check`: where each lies in every format, and what the table says of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from loaders.beton_records import BetonRecords
from loaders.raw_records import RawRecords
from loaders.seek_points import SeekPoints
from loaders.shard_layout import BLOCK_BYTES, LABEL_BYTES, padded
from loaders.shard_records import ShardRecords

from ..samples import Stored
from .image_check import CheckTask

PackedRecords = BetonRecords | RawRecords | ShardRecords

_TASK_BYTES = 2 << 20
_TASK_SAMPLES = 256


class CheckTasks(Sequence[CheckTask]):
    """All samples of a split, in tasks of about as many bytes; each is made when asked for.

    opened   by format;  columns   labels, widths, heights of the table, int64 [N];  counted   bool [N]
    points   that are to be compared with the JPEGs, if any
    """

    def __init__(
        self,
        opened: Mapping[str, PackedRecords],
        columns: Mapping[str, NDArray[np.int64]],
        counted: NDArray[np.bool_],
        points: SeekPoints | None = None,
    ) -> None:
        self._opened, self._columns, self._counted, self._points = opened, columns, counted, points
        self._ends = np.cumsum(sum(records.sizes for records in opened.values()))
        num_samples, num_bytes = len(counted), int(self._ends[-1])
        by_bytes = np.searchsorted(self._ends, np.arange(0, num_bytes, _TASK_BYTES))
        by_number = np.arange(0, num_samples, _TASK_SAMPLES)
        self._borders: list[int] = np.unique(np.concatenate([by_bytes, by_number, [0, num_samples]])).tolist()

    def __len__(self) -> int:
        return len(self._borders) - 1

    def num_samples(self, number: int) -> int:
        """In this task."""
        return self._borders[number + 1] - self._borders[number]

    def num_bytes(self, number: int) -> int:
        """That this task's samples take, in all formats."""
        start, stop = self._borders[number : number + 2]
        return int(self._ends[stop - 1]) - (int(self._ends[start - 1]) if start else 0)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, stop = self._borders[number : number + 2]
        part = slice(start, stop)
        shards = self._opened.get("shards")
        return CheckTask(
            first=start,
            stored={name: _places(records, start, stop) for name, records in self._opened.items()},
            **{name: column[part] for name, column in self._columns.items()},
            image_bytes=np.zeros(stop - start, np.int64) if shards is None else shards.sizes[part],
            counted=self._counted[part],
            seek_points=None if self._points is None else _points_places(self._points, start, stop),
        )


def _places(records: PackedRecords, start: int, stop: int) -> list[Stored]:
    """Where samples start … stop - 1 lie."""
    numbers = range(start, stop)
    positions, sizes = records.positions[start:stop].tolist(), records.sizes[start:stop].tolist()
    if isinstance(records, ShardRecords):
        paths = [str(records.paths[shard]) for shard in records.shards[start:stop].tolist()]
        return [  # from the image's header to the end of its label
            Stored(f"sample {number}", path, position - BLOCK_BYTES, BLOCK_BYTES + padded(size) + LABEL_BYTES)
            for number, path, position, size in zip(numbers, paths, positions, sizes, strict=True)
        ]
    raw_sizes = [
        (width, height) if is_raw else None
        for width, height, is_raw in zip(
            records.widths[start:stop].tolist(),
            records.heights[start:stop].tolist(),
            records.is_raw[start:stop].tolist(),
            strict=True,
        )
    ]
    path = str(records.path)
    return [
        Stored(f"sample {number}", path, position, size, raw_size)
        for number, position, size, raw_size in zip(numbers, positions, sizes, raw_sizes, strict=True)
    ]


def _points_places(points: SeekPoints, start: int, stop: int) -> list[Stored]:
    """Where what is noted of samples start … stop - 1 lies."""
    return [Stored(f"sample {number}", str(points.path), *points.place(number)) for number in range(start, stop)]
