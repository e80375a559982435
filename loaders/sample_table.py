"""`<split>.samples.npz`: one row a sample of a packed split, beside the files that hold the bytes.

An uncompressed NumPy archive, so `numpy.load` reads it without us, and only those columns that are asked for:

    labels         int64 [N]
    widths         int32 [N], pixels;  heights  int32 [N], pixels: as stored
    source_index   int64 [N], the sample's number in the source's own order
    names          uint8 [bytes], what the source calls the samples, one after the other, UTF-8 with surrogateescape
    name_ends      int64 [N], where in `names` each ends
    shard          int32 [N], number of the .tar it is in          \\
    shard_position int64 [N], where in the .tar its image begins    > where shards were written
    shard_bytes    int64 [N], the size of its image there          /
    raw_position   int64 [N], where in the .npy's data its pixels begin, height × width × 3 of them: raw alone
    seek_bytes     int64 [N], the size of its seek points in <split>.seek (`loaders.seek_points`), where there are any
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError
from .packed_names import PackedNames, TextNames
from .soundness import PACK_AGAIN, one_line, refuse_samples

COLUMNS = {
    "labels": np.int64,
    "widths": np.int32,
    "heights": np.int32,
    "source_index": np.int64,
    "name_ends": np.int64,
    "shard": np.int32,
    "shard_position": np.int64,
    "shard_bytes": np.int64,
    "raw_position": np.int64,
    "seek_bytes": np.int64,
}


def table_name(split: str) -> str:
    """The file's name in the packed folder."""
    return f"{split}.samples.npz"


def write_table(file: BinaryIO, columns: Mapping[str, NDArray[np.generic]], names: Iterable[str]) -> None:
    """Write the columns (of those above, the same length each) and the names, one a sample. The bytes hold no time."""
    packed = PackedNames.of(name.encode("utf-8", "surrogateescape") for name in names)
    stored: dict[str, NDArray[Any]] = {name: np.asarray(column, COLUMNS[name]) for name, column in columns.items()}
    stored["name_ends"] = np.frombuffer(packed.ends, np.int64)
    assert len({len(column) for column in stored.values()}) == 1, "columns of different lengths"
    stored["names"] = np.frombuffer(packed.joined, np.uint8)
    np.savez(file, allow_pickle=False, **stored)


class SampleTable:
    """Reads `<split>.samples.npz`; a column is read when first asked for."""

    def __init__(self, path: Path, num_samples: int) -> None:
        self.path = path
        self._num_samples = num_samples

    def column(self, name: str) -> NDArray[Any]:
        """[N] of the type above. Raises FeedrateError where it is not there or not sound."""
        kind = COLUMNS[name]
        column = self._stored(name)
        if column.dtype != kind or column.shape != (self._num_samples,):
            raise FeedrateError(
                f"{self.path}: column '{name}' is {column.dtype} {list(column.shape)} instead of"
                f" {np.dtype(kind)} [{self._num_samples}]: it is damaged, {PACK_AGAIN}"
            )
        return column

    def labels(self, num_classes: int) -> NDArray[np.int64]:
        """int64 [N], each below `num_classes`. Raises FeedrateError."""
        labels: NDArray[np.int64] = self.column("labels")
        refuse_samples(
            (labels < 0) | (labels >= num_classes), self.path, f"has a label that is not 0 … {num_classes - 1}"
        )
        return labels

    def sides(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Widths and heights, int32 [N] pixels, all above 0. Raises FeedrateError."""
        widths, heights = self.column("widths"), self.column("heights")
        refuse_samples((widths <= 0) | (heights <= 0), self.path, "has no pixels")
        return widths, heights

    def names(self) -> Sequence[str]:
        """What the source calls the samples, [N]. Raises FeedrateError."""
        names = PackedNames(self._stored("names").tobytes(), self.column("name_ends"))
        if not names.are_sound():
            raise FeedrateError(f"{self.path}: its names are damaged, {PACK_AGAIN}")
        return TextNames(names)

    def _stored(self, name: str) -> NDArray[Any]:
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                column: NDArray[Any] = stored[name]
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors on damaged files
            raise FeedrateError(f"{self.path} has no column '{name}' ({one_line(error)}): {PACK_AGAIN}") from error
        return column


@dataclass(frozen=True)
class InSource:
    """What the samples of a packed split are in the split's source. Can be pickled; nothing is read before it is asked.

    most   samples the source may have: those packed and the bad ones that were left out
    place  where the source lay, None where nobody noted it
    is_exact  whether it has as many as that; else some of the bad ones may have had no number in it
    """

    table: SampleTable
    most: int
    place: str | None = None
    is_exact: bool = False

    def numbers(self) -> NDArray[np.int64]:
        """int64 [N]: the number of each in the source's own order, below `most`. Raises FeedrateError."""
        numbers: NDArray[np.int64] = self.table.column("source_index")
        outside = (numbers < 0) | (numbers >= self.most)
        refuse_samples(outside, self.table.path, f"has a number in its source that is not 0 … {self.most - 1}")
        return numbers

    def names(self) -> Sequence[str]:
        """What the source calls each, [N]. Raises FeedrateError."""
        return self.table.names()
