"""What a worker of the packing pass does with a task: read samples, encode them, tell their sizes, write them."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.counter_random import Draws
from loaders.errors import FeedrateError

from .encode import Encoding, UndecodableImage, Wanted, encode
from .formats.outputs import ROW, Payload, Place, Rows
from .samples import WHOLE_FILE, Stored

_UNIT = float(1 << 53)
# of disks, networks and this process: the next sample, or the next try, may do as badly or well
_NOT_OF_SAMPLES = (
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


@dataclass(frozen=True)
class Task:
    """Some samples that are packed together: their numbers in the source, and which are counted for the statistics."""

    stored: Sequence[Stored]
    source_indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    counted: NDArray[np.bool_]


@dataclass(frozen=True)
class Report:
    """What became of a task: rows without positions, bad samples as (item, reason), and the values of pixels counted.

    histogram  int64 [3, 256] of `num_counted` samples, None where there are none
    """

    rows: Rows
    bad: list[tuple[int, str]]
    histogram: NDArray[np.int64] | None
    num_counted: int


@dataclass(frozen=True)
class PackWork:
    """See `crew.Work`. `formats` says which forms of an image are needed; `seed` draws for write mode "mix"."""

    encoding: Encoding
    formats: tuple[str, ...]
    seed: int

    def read_ahead(self, task: Task) -> None:
        """See `crew.Work`."""
        for stored in task.stored:
            stored.will_be_read()

    def prepare(self, task: Task, at: Callable[[int], None]) -> tuple[Report, list[Payload]]:
        """Encode the task's samples. Raises FeedrateError where the source cannot be read, whatever the sample."""
        rows = np.zeros(len(task.stored), ROW)
        rows["source_index"], rows["label"] = task.source_indices, task.labels
        rows["beton_is_raw"] = self._is_raw(task.source_indices)
        payloads: list[Payload] = []
        bad: list[tuple[int, str]] = []
        total, num_counted = np.zeros((3, 256), np.int64), 0
        for item, stored in enumerate(task.stored):
            at(item)
            is_raw = bool(rows["beton_is_raw"][item])
            try:
                encoded = encode(
                    stored.read(), stored.raw_size, self.encoding, self._wanted(is_raw, task.counted[item])
                )
            except UndecodableImage as error:
                bad.append((item, str(error)))
                continue
            except OSError as error:
                if not _is_of_the_sample(error, stored):
                    raise FeedrateError(
                        f"{stored.where()} cannot be read ({error.strerror}), through no fault of the image: see to"
                        " the disk or the network it is on, then give the same command again to go on"
                    ) from error
                bad.append((item, f"it cannot be read: {error.strerror}"))
                continue
            row = rows[item]
            row["width"], row["height"] = encoded.width, encoded.height
            row["jpeg_bytes"] = len(encoded.jpeg or b"")
            row["is_original"] = encoded.is_original
            row["seek_bytes"] = len(encoded.seek_points)
            payloads.append(Payload(encoded, is_raw))
            if encoded.histogram is not None:
                total += encoded.histogram
                num_counted += 1
        good = np.delete(rows, [item for item, _ in bad])
        return Report(good, bad, total if num_counted else None, num_counted), payloads

    def write(self, kept: list[Payload], place: list[Place]) -> None:
        """Write the samples in every format."""
        for one in place:
            one.write(kept)

    def _is_raw(self, source_indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [N]: whether .beton gets pixels; a draw of the sample's number in the source where both are written."""
        if self.encoding.write_mode != "mix":
            return np.full(len(source_indices), self.encoding.write_mode == "raw")
        uniform = (Draws(self.seed, 0)("write as JPEG", source_indices) >> np.uint64(11)) / _UNIT
        is_raw: NDArray[np.bool_] = uniform >= self.encoding.jpeg_share
        return is_raw

    def _wanted(self, is_raw: bool, is_counted: bool) -> Wanted:
        beton = "beton" in self.formats
        return Wanted(
            jpeg="shards" in self.formats or (beton and not is_raw),
            pixels="raw" in self.formats or (beton and is_raw),
            histogram=bool(is_counted),
        )


def _is_of_the_sample(error: OSError, stored: Stored) -> bool:
    """Whether it is for the sample alone that it cannot be read, and not for the disk or a source that has gone."""
    if error.errno != errno.ENOENT:
        return error.errno not in _NOT_OF_SAMPLES
    folder = Path(stored.path).parent
    return stored.num_bytes == WHOLE_FILE and os.access(folder, os.F_OK)  # `exists` may raise
