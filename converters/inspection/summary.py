"""The numbers that `show` prints of a packed folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.manifest import Manifest, PackedSplit
from loaders.packed_folder import open_packed

from ..byte_counts import disk_bytes
from .check_tasks import PackedRecords

# Decoding on one core, libjpeg-turbo to RGB: what the data cost and what the pixels cost. Fitted, see docs/LOG.md.
DECODED_BYTES_PER_S = 125e6
DECODE_S_PER_PIXEL = 1.1e-9

_SIDES_PX = [1, *(side for power in range(4, 17) for side in (1 << power, 3 << (power - 1)))]  # 1, 16, 24, 32, 48 …
_RATIOS = ((1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1))

HistogramRows = list[tuple[str, int]]  # (label, samples), without the empty rows at both ends


@dataclass(frozen=True)
class FormatSummary:
    """One format of a split.

    disk_bytes  that its files take of their disk;  num_raw  samples stored as pixels
    mean_bytes, median_bytes, p99_bytes, largest_bytes  that a sample takes
    decode_s    a sample, on average, on one core: estimated from bytes and pixels of those that are JPEGs
    """

    name: str
    num_files: int
    disk_bytes: int
    num_raw: int
    mean_bytes: float
    median_bytes: float
    p99_bytes: float
    largest_bytes: int
    decode_s: float


@dataclass(frozen=True)
class ClassBalance:
    """Samples a class: (samples, label) of the first with fewest and most, the median, and classes below half of it."""

    fewest: tuple[int, int]
    most: tuple[int, int]
    median: float
    num_below_half: int
    num_empty: int


@dataclass(frozen=True)
class SplitSummary:
    """One split. `common_side` is the most frequent longest side: (pixels, samples that have it)."""

    name: str
    num_samples: int
    formats: list[FormatSummary]
    longest_sides: HistogramRows
    common_side: tuple[int, int]
    ratios: HistogramRows
    balance: ClassBalance


def summarise(folder: Path, manifest: Manifest) -> list[SplitSummary]:
    """All splits, in the manifest's order. Raises FeedrateError where a format cannot be opened."""
    return [_summary(folder, name, split) for name, split in manifest.splits.items()]


def _summary(folder: Path, name: str, split: PackedSplit) -> SplitSummary:
    formats = []
    for format_name, files in split.formats.items():
        records = open_packed(folder, name, format_name)
        assert isinstance(records, PackedRecords)
        formats.append(_format(format_name, records, len(files), disk_bytes(folder / file.name for file in files)))
        widths, heights = records.widths, records.heights
        records.close()
    sides, counts = np.unique(np.maximum(widths, heights), return_counts=True)
    common = int(counts.argmax())
    return SplitSummary(
        name,
        split.num_samples,
        formats,
        side_histogram(np.maximum(widths, heights)),
        (int(sides[common]), int(counts[common])),
        ratio_histogram(widths, heights),
        class_balance(np.array(split.samples_per_class)),
    )


def _format(name: str, records: PackedRecords, num_files: int, on_disk: int) -> FormatSummary:
    sizes, is_jpeg = records.sizes, ~records.is_raw
    median, p99 = np.percentile(sizes, [50, 99])
    num_pixels = records.widths.astype(np.int64) * records.heights
    return FormatSummary(
        name,
        num_files,
        on_disk,
        num_raw=int(records.is_raw.sum()),
        mean_bytes=float(sizes.mean()),
        median_bytes=float(median),
        p99_bytes=float(p99),
        largest_bytes=int(sizes.max()),
        decode_s=decode_seconds(int(sizes[is_jpeg].sum()), int(num_pixels[is_jpeg].sum())) / len(sizes),
    )


def decode_seconds(num_bytes: int, num_pixels: int) -> float:
    """What one core needs, by the model, to decode JPEGs of so many bytes and pixels."""
    return num_bytes / DECODED_BYTES_PER_S + num_pixels * DECODE_S_PER_PIXEL


def side_histogram(sides_px: NDArray[np.int32]) -> HistogramRows:
    """Samples by side, in steps of powers of two and of what lies half-way between them."""
    edges = np.array(_SIDES_PX)
    counts = np.bincount(np.searchsorted(edges, sides_px, side="right") - 1, minlength=len(edges))
    labels = [f"{low}–{high - 1} px" for low, high in zip(_SIDES_PX, [*_SIDES_PX[1:], _SIDES_PX[-1] + 1], strict=True)]
    return _trimmed(labels, counts)


def ratio_histogram(widths: NDArray[np.int32], heights: NDArray[np.int32]) -> HistogramRows:
    """Samples by the nearest of some usual ratios of width to height."""
    logs = np.log([width / height for width, height in _RATIOS])
    nearest = np.searchsorted((logs[1:] + logs[:-1]) / 2, np.log(widths / heights))
    labels = [f"{width}:{height}" for width, height in _RATIOS]
    labels[0], labels[-1] = f"{labels[0]} or taller", f"{labels[-1]} or wider"
    return _trimmed(labels, np.bincount(nearest, minlength=len(_RATIOS)))


def class_balance(samples_per_class: NDArray[np.int64]) -> ClassBalance:
    """See `ClassBalance`."""
    fewest, most = int(samples_per_class.argmin()), int(samples_per_class.argmax())
    median = float(np.median(samples_per_class))
    return ClassBalance(
        (int(samples_per_class[fewest]), fewest),
        (int(samples_per_class[most]), most),
        median,
        int(np.count_nonzero(samples_per_class < median / 2)),
        int(np.count_nonzero(samples_per_class == 0)),
    )


def _trimmed(labels: list[str], counts: NDArray[np.int64]) -> HistogramRows:
    used = np.flatnonzero(counts)
    rows = range(int(used[0]), int(used[-1]) + 1)
    return [(labels[row], int(counts[row])) for row in rows]
