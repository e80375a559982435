"""A packed folder: `manifest.json`, and each split in one format or several. Also .beton files without one, as FFCV
writes them: one alone, or a folder of one a split."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .beton_records import BetonRecords
from .errors import FeedrateError
from .manifest import MANIFEST_NAME, WORK_FOLDER, Manifest, PackedSplit, read_manifest
from .raw_records import RawRecords
from .records import SPLITS, ChannelStatistics, Records, ScanProgress
from .sample_table import InSource, SampleTable
from .seek_points import SeekPoints
from .shard_records import ShardRecords
from .soundness import PACK_AGAIN

PREFERRED = ("beton", "raw", "shards")  # the first that is there is taken unless one is asked for
_BETON_SUFFIXES = (".beton", ".ffcv")
_SIGNS_OF_PACKING = (MANIFEST_NAME, "*.samples.npz", WORK_FOLDER)  # what FFCV does not write
_SIGNS = (*_SIGNS_OF_PACKING, *(f"*{suffix}" for suffix in _BETON_SUFFIXES))


def recognises(path: Path) -> bool:
    """Whether `path` is a packed folder or looks like a .beton file; says nothing about its being whole."""
    if path.is_dir():
        return any(next(path.glob(pattern), None) for pattern in _SIGNS)
    return path.suffix in _BETON_SUFFIXES


def list_splits(path: Path) -> tuple[str, ...]:
    """The splits in a packed folder, or the one that a .beton file holds. Raises FeedrateError."""
    if path.is_dir():
        held = bare_files(path) or _manifest_of(path).splits
        return tuple(split for split in SPLITS if split in held)
    return (_split_of_file(path),)


def open_split(path: Path, split: str, progress: ScanProgress | None = None, prefers: str | None = None) -> Records:
    """Open one split; `progress` is never called, since sizes are stored.

    prefers  the format to take of a folder that holds it, in place of the first of PREFERRED

    Raises FeedrateError on anything unsound, and where there is no such split. A manifest is read, and the files that
    it names are looked for, once.
    """
    if path.is_dir():
        if bare := bare_files(path):
            return _open_bare(path, bare, split)
        formats = PREFERRED if prefers is None else (prefers, *PREFERRED)
        return _open_first(path, split, formats, _manifest_of(path))
    found = _manifest_beside(path)
    held = _split_of_name(path) if found is None else found[0]
    if split != held:
        raise _has_no(path, split, [held])
    return BetonRecords(path) if found is None else _open(path.parent, split, "beton", found[1])


def bare_files(folder: Path) -> dict[str, Path]:
    """By split, the .beton files of a folder in which nothing else was packed; none where something was.

    Raises FeedrateError where two of them are of one split.
    """
    if any(next(folder.glob(pattern), None) for pattern in _SIGNS_OF_PACKING):
        return {}
    files: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix in _BETON_SUFFIXES):
        split = _split_of_name(file)
        if split in files:
            raise FeedrateError(
                f"{folder} holds {files[split].name} and {file.name}, both of which are '{split}' by their names:"
                " keep one of each split in a folder of their own"
            )
        files[split] = file
    return files


def open_packed(folder: Path, split: str, format: str | None = None) -> Records:
    """Open one split of a packed folder as "beton", "raw" or "shards", or as the first of them that it holds.

    Raises FeedrateError where the folder has no such split, no such format, or is not sound.
    """
    return _open_first(folder, split, PREFERRED if format is None else (format,), _manifest_of(folder))


def _open_first(folder: Path, split: str, wanted: tuple[str, ...], manifest: Manifest) -> Records:
    """In the first of the wanted formats that is there."""
    if split not in manifest.splits:
        raise _has_no(folder, split, manifest.splits)
    stored = manifest.splits[split].formats
    chosen = next((name for name in wanted if name in PREFERRED and name in stored), None)
    if chosen is None:
        raise FeedrateError(
            f"{folder} holds its '{split}' split as {', '.join(stored) or 'nothing'}, not as {' or '.join(wanted)}:"
            f" {PACK_AGAIN}"
        )
    return _open(folder, split, chosen, manifest)


def _has_no(path: Path, split: str, held: Iterable[str]) -> FeedrateError:
    return FeedrateError(f"{path} has no '{split}' split: it holds {' and '.join(held)}")


def _open(folder: Path, split: str, format: str, manifest: Manifest) -> Records:
    """One format of a split, checked against what the manifest says of it."""
    packed = manifest.splits[split]
    paths = [folder / file.name for file in packed.formats[format]]
    if format == "shards":
        paths = [path for path in paths if path.suffix == ".tar"]
    if not paths or packed.num_samples <= 0 or (len(paths) > 1 and format != "shards"):
        raise FeedrateError(
            f"{folder / MANIFEST_NAME} lists {packed.num_samples:,} samples in {len(paths)} files as the"
            f" {format} of '{split}': {PACK_AGAIN}"
        )
    classes = tuple(manifest.classes)
    channels = _channels(folder, manifest)
    table = SampleTable(folder / packed.samples.name, packed.num_samples)
    records: BetonRecords | RawRecords | ShardRecords
    if format == "raw":
        records = RawRecords(paths[0], table, classes, channels)
    else:
        seek = packed.seek_points
        points = None if seek is None else SeekPoints(folder / seek.name, table.column("seek_bytes"), table.path)
        if format == "beton":
            records = BetonRecords(paths[0], classes, channels, points)
        else:
            records = ShardRecords(paths, table, classes, channels, points)
    records.in_source = _in_source(table, split, manifest)
    _check_counts(records, packed, paths[0] if format == "beton" else table.path)
    return records


def _in_source(table: SampleTable, split: str, manifest: Manifest) -> InSource:
    """Where the samples of a split stood; older manifests do not say how many were listed there."""
    packed, place, listed = manifest.splits[split], manifest.source.get("path"), manifest.source.get("num_listed")
    place = place if isinstance(place, str) else None
    num_listed = listed.get(split) if isinstance(listed, dict) else None
    if isinstance(num_listed, int):
        return InSource(table, num_listed, place, is_exact=True)
    return InSource(table, packed.num_samples + packed.num_bad, place)


def _open_bare(folder: Path, files: dict[str, Path], split: str) -> BetonRecords:
    """One of them, its classes numbered as far as the labels of any of them go."""
    if split not in files:
        raise _has_no(folder, split, files)
    records = {name: BetonRecords(file) for name, file in files.items()}
    chosen = records.pop(split)
    for other in records.values():
        chosen.classes = max(chosen.classes, other.classes, key=len)
        other.close()
    return chosen


def _check_counts(records: Records, packed: PackedSplit, path: Path) -> None:
    counts = np.bincount(records.labels, minlength=len(records.classes))
    if len(records) != packed.num_samples or counts.tolist() != packed.samples_per_class:
        raise FeedrateError(
            f"{path} holds {len(records):,} samples that are not those {MANIFEST_NAME} counts"
            f" ({packed.num_samples:,}): {PACK_AGAIN}"
        )


def _channels(folder: Path, manifest: Manifest) -> ChannelStatistics:
    (mean_r, mean_g, mean_b), (std_r, std_g, std_b) = manifest.statistics.mean, manifest.statistics.std
    source = f"{manifest.statistics.split} split of {folder}"
    return ChannelStatistics((mean_r, mean_g, mean_b), (std_r, std_g, std_b), source)


def _manifest_of(folder: Path) -> Manifest:
    """The manifest of a packed folder, with a sentence for a folder whose packing never ended."""
    if not (folder / MANIFEST_NAME).is_file():
        raise FeedrateError(
            f"{folder} has no {MANIFEST_NAME}, so its packing never ended: {PACK_AGAIN}, or give the path of one .beton"
            " file"
        )
    return read_manifest(folder)


def _manifest_beside(path: Path) -> tuple[str, Manifest] | None:
    """The split that the manifest in the same folder gives to this .beton file, and that manifest."""
    if not (path.parent / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(path.parent)
    for name, split in manifest.splits.items():
        if path.name in (file.name for file in split.formats.get("beton", [])):
            return name, manifest
    return None


def _split_of_file(path: Path) -> str:
    found = _manifest_beside(path)
    return _split_of_name(path) if found is None else found[0]


def _split_of_name(path: Path) -> str:
    """ "val" where a word of the name begins with val or test."""
    words = re.findall("[a-z]+", path.name.lower())
    return "val" if any(word.startswith(("val", "test")) for word in words) else "train"
