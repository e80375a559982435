"""Some of a set's images packed in several formats by the project's own converter, in a folder that does not stay."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.encode import Encoding
from converters.packing import PackSettings, pack
from converters.presets import PRESETS
from converters.restarts import why_no_kernel
from converters.sources.records_source import RecordSamples
from engine.config import Config
from engine.data import preferred_format
from engine.data_path import data_path_to_open
from engine.profiler.calibration import FormatSample, FormatSamples
from engine.profiler.decode_model import StoredImages
from engine.sampling import training_sampling
from loaders.counter_random import draw, stream_key
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics, Records, open_records

FOLDER_PREFIX = "feedrate-what-if-"  # and the process, in /dev/shm or the folder for temporary files

_NOW = "now"
_BY_POINTS = ("turbo", "auto")  # loaders that decode by seek points, or may be one that does
_PROBED = 2048  # images by whose bytes the whole set's are told
_ROOM = 1.5  # so many times the bytes that are expected must be free
_YOUNG_S = 60.0


@dataclass(frozen=True)
class Format:
    """One to pack for: in words, by which options of tools/convert.py, and as the converter is told."""

    text: str
    how: str
    encoding: Encoding


def _formats() -> dict[str, Format]:
    raw = {"write_mode": "raw"}
    sizes = {"500": "longest side 500 px", "400": "longest side 400 px", "256": "shortest side 256 px"}
    found = {
        name: Format(f"JPEG, {text}", f"tools/convert.py --preset {name}", PRESETS[name].encoding)
        for name, text in sizes.items()
    }
    found["full"] = Format("JPEG, full size, seek points", "tools/convert.py --preset full", PRESETS["full"].encoding)
    found["raw"] = Format("raw, full size", "--write-mode raw", replace(PRESETS["full"].encoding, **raw))
    found["raw-256"] = Format(
        "raw, shortest side 256 px", "--preset 256 --write-mode raw", replace(PRESETS["256"].encoding, **raw)
    )
    return found


FORMATS: Mapping[str, Format] = _formats()


class SomeOf:
    """Of records the samples with these numbers, in this order; their bytes are copied as they are read."""

    channels: ChannelStatistics | None = None

    def __init__(self, records: Records, ids: NDArray[np.int64]) -> None:
        self._records = records
        self._ids = ids
        self.classes = records.classes
        self.labels = records.labels[ids]
        self.widths, self.heights = records.widths[ids], records.heights[ids]
        self.is_raw = records.is_raw[ids]

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, index: int) -> NDArray[np.uint8]:
        """See `Records`."""
        return self._records.read(int(self._ids[index]))

    def where(self, index: int) -> str:
        """See `Records`."""
        return self._records.where(int(self._ids[index]))

    def close(self) -> None:
        """The records are whoever's opened them."""


@contextmanager
def packed_samples(
    config: Config, names: Sequence[str], count: int
) -> Iterator[tuple[FormatSamples | None, list[str]]]:
    """(up to `count` images that take part, as they are stored and in the formats called so; why others are not there).

    None where there are none at all. All is gone behind the block, however it is left.
    """
    path, prefers = data_path_to_open(config.data), preferred_format(config)
    with closing(open_records(path, config.data.train_split, prefers=prefers)) as records:
        pool = training_sampling(records, config.data).pool
        chosen = records if pool is None else SomeOf(records, pool)
        some = some_of(chosen, count)
        gains_points = config.loader in _BY_POINTS and getattr(records, "seek_points", None) is None
        gains_points = gains_points and not why_no_kernel() and not bool(some.is_raw[0])
        known, refused = _useful(some, names, gains_points)
        if not known:
            yield None, refused
            return
        with room_for(_expected_bytes(some, known)) as folder:
            now = Encoding(
                write_mode="raw" if bool(some.is_raw[0]) else "jpg",
                seek_points=getattr(records, "seek_points", None) is not None and not why_no_kernel(),
            )
            packed = {_NOW: pack_some(some, folder / _NOW, now, config)}
            packed |= {name: pack_some(some, folder / name, _as_packed(name), config) for name in known}
            same = [
                name
                for name in known
                if packed[name] == packed[_NOW] and not (gains_points and _has_points(folder / name, config))
            ]
            refused += [f"{FORMATS[name].text}: the images are stored so already" for name in same]
            formats = {
                name: FormatSample(str(folder / name), FORMATS[name].text, FORMATS[name].how, packed[name])
                for name in known
                if name not in same
            }
            whole = _whole_set(chosen, some, packed[_NOW])
            yield (
                FormatSamples(FormatSample(str(folder / _NOW), "as now", "", packed[_NOW]), formats, whole, len(some)),
                refused,
            )


def some_of(records: Records, count: int) -> SomeOf:
    """So many of the samples, or all of fewer: the same ones each time, from all over the set."""
    ids = np.arange(len(records), dtype=np.int64)
    keys = draw(stream_key(0, 0, "packed to be tried"), ids)
    return SomeOf(records, np.sort(ids[np.argsort(keys, kind="stable")[:count]]))


def _has_points(packed: Path, config: Config) -> bool:
    with closing(open_records(packed, config.data.train_split)) as records:
        points = getattr(records, "seek_points", None)
        return points is not None and bool(points.sizes.any())


def _as_packed(name: str) -> Encoding:
    """As the converter packs it unless told otherwise: JPEGs with seek points."""
    encoding = FORMATS[name].encoding
    return replace(encoding, seek_points=encoding.write_mode == "jpg" and not why_no_kernel())


def _useful(some: SomeOf, names: Sequence[str], gains_points: bool) -> tuple[list[str], list[str]]:
    """Formats that can be tried, and why others cannot.

    gains_points  packing as they are would note seek points, of which the set has none yet and the loader makes use
    """
    if some.is_raw.any() and not some.is_raw.all():
        return [], ["other formats: the set is stored half raw, half as JPEG"]
    found, refused = [], []
    for name in names:
        encoding = FORMATS[name].encoding
        sides = some.heights, some.widths
        side = np.maximum(*sides) if encoding.limited == "longest" else np.minimum(*sides)
        as_now = encoding.limit_px is None or not (side > encoding.limit_px).any()
        is_as_stored = as_now and (encoding.write_mode == "raw") == bool(some.is_raw[0])
        if as_now and encoding.limit_px is not None:
            refused.append(f"{FORMATS[name].text}: the images are no larger")
        elif not is_as_stored or (encoding.write_mode == "jpg" and gains_points):
            found.append(name)
    return found, refused


def _expected_bytes(some: SomeOf, names: Sequence[str]) -> int:
    pixels = 3 * int((some.widths.astype(np.int64) * some.heights).sum())
    raw = sum(FORMATS[name].encoding.write_mode == "raw" for name in names) + bool(some.is_raw[0])
    return raw * pixels + (len(names) + 1) * pixels // 4  # a JPEG takes less than a quarter of its pixels


@contextmanager
def room_for(num_bytes: int) -> Iterator[Path]:
    """A folder in memory where there is room for so many bytes, else on disk; gone behind the block."""
    places = [
        place for place in ("/dev/shm", tempfile.gettempdir()) if Path(place).is_dir() and os.access(place, os.W_OK)
    ]
    for place in places:
        _remove_left_behind(Path(place))
    for place in places:
        if shutil.disk_usage(place).free > _ROOM * num_bytes:
            prefix = f"{FOLDER_PREFIX}{os.getpid()}-"
            with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as folder, _held(Path(folder)):
                yield Path(folder)
            return
    raise FeedrateError(f"no room for {num_bytes / 1e6:,.0f} MB in {' or '.join(places)}: make some, or see --what-if")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Show others, in other containers too, that somebody uses it: who does ends with its lock, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _remove_left_behind(place: Path) -> None:
    """Remove what profilers left that were killed: in /dev/shm it would take memory until the machine starts anew."""
    for folder in place.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):  # another user's, or one that is gone by now
            if time.time() - folder.stat().st_mtime < _YOUNG_S:
                continue  # whoever makes it may not hold it yet
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def pack_some(some: SomeOf, out: Path, encoding: Encoding, config: Config) -> StoredImages:
    """Pack, and say what came out."""
    samples = RecordSamples(some, str, config.data.path, b"")
    pack({config.data.train_split: samples}, out, PackSettings(encoding, seed=None), num_workers=0)
    with closing(open_records(out, config.data.train_split)) as packed:
        return StoredImages(
            float(np.mean([len(packed.read(index)) for index in range(len(packed))])),
            float(np.mean(packed.widths.astype(np.int64) * packed.heights)),
            bool(packed.is_raw[0]),
        )


def _whole_set(records: Records, some: SomeOf, now: StoredImages) -> StoredImages:
    """What all of the set's images are like: their pixels are known, of their bytes those of many."""
    num_pixels = float(np.mean(records.widths.astype(np.int64) * records.heights))
    if len(records) == len(some):
        return now
    probed = np.unique(np.linspace(0, len(records) - 1, min(_PROBED, len(records))).astype(np.int64))
    return StoredImages(
        float(np.mean([len(records.read(int(index))) for index in probed])), num_pixels, bool(records.is_raw[0])
    )
