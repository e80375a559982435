"""The packing pass: samples in their source's order, encoded by many processes, into one folder, all or nothing."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from loaders.atomic import PARTIAL_SUFFIX, atomic_file
from loaders.errors import FeedrateError
from loaders.manifest import MANIFEST_NAME, Manifest, PackedSplit, write_manifest
from loaders.records import SPLITS, Records, records_fingerprint

from .beton import BetonWriter
from .crew import run_in_order
from .encode import Encoded, Encoding, UndecodableImage, encode
from .progress import Phase, silent_phase

_CHUNK_PIXEL_BYTES = 4 << 20  # what one task decodes to, about: bounds the memory of the whole pass
_CHUNK_SAMPLES = 256
_NUM_PROBED = 32  # samples encoded beforehand, to estimate the space needed
_SURELY = 0.7  # of the estimate: only a disk with less free is refused, since the estimate is from so few
_HASH_BLOCK_BYTES = 8 << 20
_OWN_FILES = [f"{split}.beton{suffix}" for split in SPLITS for suffix in ("", PARTIAL_SUFFIX)]


@dataclass(frozen=True)
class Packed:
    """What a pass has written: the manifest, and how many images kept the bytes they came with."""

    manifest: Manifest
    num_original: int


@dataclass
class _Tally:
    """Summed over the samples of a split: int64 [3, 256] counts of pixel values, and images kept as they were."""

    histogram: NDArray[np.int64]
    num_original: int = 0


@dataclass(frozen=True)
class ChunkEncoder:
    """The work of the crew: encode samples [start, stop)."""

    records: Records
    encoding: Encoding

    def __call__(self, task: tuple[int, int], begin: Callable[[int], None]) -> tuple[list[Encoded], NDArray[np.int64]]:
        """The encoded samples, and their histograms' sum. Raises FeedrateError naming one that cannot be decoded."""
        encoded, total = [], np.zeros((3, 256), np.int64)
        for index in range(*task):
            begin(index)
            sample, histogram = self.encode(index)
            encoded.append(sample)
            total += histogram
        return encoded, total

    def encode(self, index: int) -> tuple[Encoded, NDArray[np.int64]]:
        """One sample, and its histogram."""
        records = self.records
        size = (int(records.widths[index]), int(records.heights[index])) if records.is_raw[index] else None
        try:
            return encode(records.read(index), size, self.encoding)
        except UndecodableImage as error:
            raise FeedrateError(
                f"{records.where(index)} cannot be decoded ({error}): replace or remove that image"
            ) from error

    def describe(self, item: int) -> str:
        return self.records.where(item)


def pack(
    splits: Mapping[str, Records],
    out: Path,
    encoding: Encoding,
    num_workers: int,
    overwrite: bool = False,
    source: Mapping[str, Any] | None = None,
    phase: Phase = silent_phase,
) -> Packed:
    """Pack the splits into `out`: one .beton file each, then the manifest. The bytes do not depend on `num_workers`.

    Either everything gets its name or nothing does: on any exception, KeyboardInterrupt included, the files of this
    pass are removed. Raises FeedrateError for a broken image, a dead worker, a full disk, or a folder already packed.
    """
    with _claimed(out, overwrite):
        num_bytes_needed = _estimate_bytes(splits, encoding)
        _check_space(out, num_bytes_needed)
        try:
            packed, tallies = _pack_files(splits, out, encoding, num_workers, phase)
            manifest = _describe(splits, packed, tallies, encoding, source)
            write_manifest(out, manifest)
        except BaseException as error:
            for name in (MANIFEST_NAME, *_OWN_FILES):  # also what had its name already when the rest failed
                (out / name).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_space(out, num_bytes_needed) from error
            raise
    return Packed(manifest, sum(tally.num_original for tally in tallies.values()))


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a packed set, unless it is to be overwritten. Raises FeedrateError."""
    if out.exists() and not out.is_dir():
        raise FeedrateError(f"{out} is a file: give a folder with --out")
    for name in (MANIFEST_NAME, *_OWN_FILES):
        if (out / name).exists() and not overwrite and not name.endswith(PARTIAL_SUFFIX):
            raise FeedrateError(
                f"{out} already holds {name}: give another --out, or --overwrite to replace what it holds"
            )


@contextmanager
def _claimed(out: Path, overwrite: bool) -> Iterator[None]:
    """The folder, made if need be, held against other packing passes, and without what an earlier one left.

    Overwriting removes the old manifest first and then the old files, before anything is written: nothing opens a
    folder without a manifest, so an interrupted pass never leaves one that describes other files; and there is seldom
    room for two copies.
    """
    check_folder(out, overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise FeedrateError(f"{out} cannot be written to ({error.strerror}): give another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeedrateError(f"{out} is being packed by another process: wait, or give another --out") from error
        check_folder(out, overwrite)  # again: whoever held it may have just finished
        for name in (MANIFEST_NAME, *_OWN_FILES):
            (out / name).unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _pack_files(
    splits: Mapping[str, Records], out: Path, encoding: Encoding, num_workers: int, phase: Phase
) -> tuple[dict[str, PackedSplit], dict[str, _Tally]]:
    """Write every split's file; all take their names at the end, together."""
    packed, tallies = {}, {}
    with ExitStack() as files:
        for split, records in splits.items():
            name = f"{split}.beton"
            file = files.enter_context(atomic_file(out / name))
            with phase(f"pack {split}", len(records)) as advance:
                tallies[split] = _write_samples(file, ChunkEncoder(records, encoding), num_workers, advance)
            num_bytes, digest = _measure(file)
            per_class = np.bincount(records.labels, minlength=len(records.classes)).tolist()
            packed[split] = PackedSplit(name, len(records), num_bytes, digest, per_class)
    return packed, tallies


def _write_samples(file: BinaryIO, work: ChunkEncoder, num_workers: int, advance: Callable[[int, int], None]) -> _Tally:
    tally = _Tally(np.zeros((3, 256), np.int64))
    writer = BetonWriter(file, len(work.records))
    labels = iter(work.records.labels.tolist())
    with closing(run_in_order(work, _chunks(work.records), num_workers)) as chunks:
        for encoded, histogram in chunks:
            for sample in encoded:
                writer.add(sample.data, sample.is_raw, sample.width, sample.height, next(labels))
                tally.num_original += sample.is_original
            tally.histogram += histogram
            advance(len(encoded), sum(len(sample.data) for sample in encoded))
    writer.finish()
    return tally


def _chunks(records: Records) -> list[tuple[int, int]]:
    """Tasks: ranges of samples that decode to a few MB each, on average."""
    num_pixel_bytes = 3 * int(np.dot(records.widths.astype(np.int64), records.heights.astype(np.int64)))
    size = min(_CHUNK_SAMPLES, max(1, _CHUNK_PIXEL_BYTES * len(records) // max(1, num_pixel_bytes)))
    return [(start, min(start + size, len(records))) for start in range(0, len(records), size)]


def _measure(file: BinaryIO) -> tuple[int, str]:
    """Size and SHA-256 of a finished file. The tables before the pages are written last, so it has to be read again."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(_HASH_BLOCK_BYTES))
    file.seek(0)
    while num_read := file.readinto(block):  # type: ignore[attr-defined]
        digest.update(block[:num_read])
    return file.tell(), digest.hexdigest()


def _estimate_bytes(splits: Mapping[str, Records], encoding: Encoding) -> int:
    """What the files will take, from a few samples of each split."""
    total = 0
    for records in splits.values():
        work = ChunkEncoder(records, encoding)
        probed = np.unique(np.linspace(0, len(records) - 1, _NUM_PROBED).astype(np.int64)).tolist()
        sizes = [len(work.encode(index)[0].data) for index in probed]
        total += sum(sizes) * len(records) // len(sizes)
    return total


def _check_space(out: Path, num_bytes_needed: int) -> None:
    if shutil.disk_usage(out).free < _SURELY * num_bytes_needed:
        raise _no_space(out, num_bytes_needed)


def _no_space(out: Path, num_bytes_needed: int) -> FeedrateError:
    free = shutil.disk_usage(out).free
    return FeedrateError(
        f"{out} needs about {num_bytes_needed / 1e9:,.2f} GB and its disk has {free / 1e9:,.2f} GB free:"
        " free some, give another --out, or store less (--max-side)"
    )


def channel_statistics(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel, 0-255, from int64 [3, 256] counts: exact until the last rounding."""
    means, deviations = [], []
    for counts in histogram.tolist():
        num = sum(counts)
        mean = Fraction(sum(value * count for value, count in enumerate(counts)), num)
        mean_square = Fraction(sum(value * value * count for value, count in enumerate(counts)), num)
        means.append(float(mean))
        deviations.append(float(mean_square - mean * mean) ** 0.5)
    return means, deviations


def _describe(
    splits: Mapping[str, Records],
    packed: dict[str, PackedSplit],
    tallies: Mapping[str, _Tally],
    encoding: Encoding,
    source: Mapping[str, Any] | None,
) -> Manifest:
    """The manifest. It holds no time and no number of workers, so packing twice gives the same bytes."""
    statistics_split = "train" if "train" in splits else next(iter(splits))
    mean, std = channel_statistics(tallies[statistics_split].histogram)
    fingerprints = {split: records_fingerprint(records) for split, records in splits.items()}
    return Manifest(
        classes=list(splits[statistics_split].classes),
        splits=packed,
        channel_mean=mean,
        channel_std=std,
        statistics_split=statistics_split,
        settings={
            "write_mode": encoding.write_mode,
            "max_side_px": encoding.max_side_px,
            "quality": encoding.quality,
        },
        source={**(source or {}), "fingerprints": fingerprints},
        versions={name: _version(name) for name in ("feedrate", "simplejpeg", "opencv-python-headless", "pillow")},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
