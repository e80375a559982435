"""Records in FFCV's container: a packed folder with its manifest, or a bare `.beton` file, whoever wrote it.

The file is checked as a whole before anything is used, because FFCV itself checks nothing: after an interrupted
conversion its reader takes the entire file for an allocation table and its decoder ends the process.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import beton_layout as layout
from .errors import FeedrateError, LoaderError
from .manifest import MANIFEST_NAME, Manifest, read_manifest
from .records import SPLITS, ChannelStatistics, ScanProgress

SUFFIXES = (".beton", ".ffcv")
_MOST_CLASSES = 1 << 20  # a name is made for each label of a bare file: a damaged label must not take all memory
_REMEDY = "pack the data set again (python tools/convert.py)"


def recognises(path: Path) -> bool:
    """Whether `path` is a packed folder or looks like a packed file; says nothing about its being whole."""
    if path.is_dir():
        return (path / MANIFEST_NAME).is_file() or any(path.glob("*.beton"))
    return path.suffix in SUFFIXES


def list_splits(path: Path) -> tuple[str, ...]:
    """The splits in a packed folder, or the one that a file holds. Raises FeedrateError."""
    if path.is_dir():
        return tuple(split for split in SPLITS if split in _manifest_of(path).splits)
    return (_split_of_file(path),)


def open_split(path: Path, split: str, progress: ScanProgress | None = None) -> "BetonRecords":
    """Open one split; `progress` is never called, since sizes are stored. Raises FeedrateError on anything unsound."""
    if path.is_dir():
        manifest = _manifest_of(path)
        return _open_named(path, split, manifest)
    found = _manifest_beside(path)
    return BetonRecords(path) if found is None else _open_named(path.parent, found[0], found[1])


class BetonRecords:
    """One `.beton` file, memory-mapped. Fulfils `loaders.records.Records`; classes are "0", "1", … unless given.

    `positions` and `sizes` (int64 [N]) say where in the file each sample's bytes lie.
    """

    def __init__(
        self, path: Path, classes: tuple[str, ...] | None = None, channels: ChannelStatistics | None = None
    ) -> None:
        self.path = path
        self.channels = channels
        try:
            with open(path, "rb") as file:
                columns = _read_columns(file, path)
        except OSError as error:
            raise FeedrateError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        self.labels = columns.labels
        self.widths = columns.widths
        self.heights = columns.heights
        self.is_raw = columns.is_raw
        self.positions = columns.positions
        self.sizes = columns.sizes
        self._num_bytes = columns.num_bytes
        highest = int(self.labels.max())
        if highest >= _MOST_CLASSES:
            raise FeedrateError(f"{path} has label {highest}, {_MOST_CLASSES:,} or more: it is damaged, {_REMEDY}")
        self.classes = tuple(str(label) for label in range(highest + 1)) if classes is None else classes
        if highest >= len(self.classes):
            raise FeedrateError(f"{path} has label {highest} and only {len(self.classes)} classes: {_REMEDY}")
        self._bytes: NDArray[np.uint8] | None = self._map()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [size], read-only, a view of the file's memory map: no copy, valid as long as anyone holds it."""
        if self._bytes is None:
            raise LoaderError(f"{self.where(index)} cannot be read: its file has been closed")
        start = self.positions[index]
        return self._bytes[start : start + self.sizes[index]]

    def where(self, index: int) -> str:
        """File, sample number and position."""
        return f"{self.path}, sample {index} at byte {self.positions[index]}"

    def close(self) -> None:
        """Let go of the memory map; it goes away with the last view that `read` gave out."""
        self._bytes = None

    def _map(self) -> NDArray[np.uint8]:
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != self._num_bytes:
                raise LoaderError(f"{self.path} has changed since it was opened: start again")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": self._bytes is not None}  # a map cannot travel, that there was one can

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bytes = self._map() if state["_bytes"] else None


def _manifest_of(folder: Path) -> Manifest:
    """The manifest of a packed folder, with a sentence for a folder whose packing never ended."""
    if not (folder / MANIFEST_NAME).is_file():
        raise FeedrateError(
            f"{folder} has .beton files and no {MANIFEST_NAME}: {_REMEDY}, or give the path of one .beton file"
        )
    return read_manifest(folder)


def _manifest_beside(path: Path) -> tuple[str, Manifest] | None:
    """The split that the manifest in the same folder gives to this file, and that manifest."""
    if not (path.parent / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(path.parent)
    for name, split in manifest.splits.items():
        if path.name in (file.name for file in split.formats.get("beton", [])):
            return name, manifest
    return None


def _split_of_file(path: Path) -> str:
    found = _manifest_beside(path)
    if found is not None:
        return found[0]
    name = path.name.lower()
    return "val" if "val" in name or "test" in name else "train"


def _open_named(folder: Path, split: str, manifest: Manifest) -> BetonRecords:
    """The file of a split, checked against what the manifest says of it."""
    packed = manifest.splits[split]
    if "beton" not in packed.formats:
        raise FeedrateError(
            f"{folder} holds its '{split}' split as {', '.join(packed.formats)}, not as .beton: {_REMEDY}"
        )
    mean, std = manifest.statistics.mean, manifest.statistics.std
    source = f"{manifest.statistics.split} split of {folder}"
    channels = ChannelStatistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), source)
    records = BetonRecords(folder / packed.formats["beton"][0].name, tuple(manifest.classes), channels)
    counts = np.bincount(records.labels, minlength=len(manifest.classes))
    if counts.tolist() != packed.samples_per_class or len(records) != packed.num_samples:
        raise FeedrateError(
            f"{records.path} holds {len(records):,} samples that are not those {MANIFEST_NAME} counts"
            f" ({packed.num_samples:,}): {_REMEDY}"
        )
    return records


@dataclass(frozen=True)
class _Columns:
    labels: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    is_raw: NDArray[np.bool_]
    positions: NDArray[np.int64]
    sizes: NDArray[np.int64]
    num_bytes: int  # of the file


def _read_columns(file: BinaryIO, path: Path) -> _Columns:
    """Read and check header, descriptors, metadata and allocation table."""
    num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes < layout.HEADER.itemsize:
        raise FeedrateError(f"{path} has {num_bytes} bytes, too few for a .beton file: {_REMEDY}")
    header = _read(file, layout.HEADER, 1, 0, path)[0]
    table_start = _check_header(header, num_bytes, path)
    num_fields, num_samples = int(header["num_fields"]), int(header["num_samples"])
    fields = _read(file, layout.FIELD, num_fields, layout.HEADER.itemsize, path)
    image, label, record = _choose_fields(fields, path)
    first_data = layout.metadata_start(num_fields) + num_samples * record.itemsize
    if first_data > table_start:
        raise FeedrateError(f"{path} claims {num_samples:,} samples, more than fit in it: it is damaged, {_REMEDY}")
    metadata = _read(file, record, num_samples, layout.metadata_start(num_fields), path)
    num_entries = (num_bytes - table_start) // layout.ALLOCATION.itemsize
    if not num_samples <= num_entries <= num_samples * num_fields:
        raise FeedrateError(
            f"{path} has {num_samples:,} samples and {num_entries:,} entries in its allocation table:"
            f" it is damaged or was cut short, {_REMEDY}"
        )
    table = _read(file, layout.ALLOCATION, num_entries, table_start, path)

    images, labels = metadata[image], np.ascontiguousarray(metadata[label])
    positions = np.ascontiguousarray(images["data_ptr"])
    sizes = _sizes_of(positions, table, path)
    outside = (
        (positions < first_data)
        | (positions > table_start)
        | (sizes > table_start - np.minimum(positions, table_start))
    )
    _refuse(outside, path, "lies outside the file's data")
    _check_images(images, sizes, path)
    _refuse(labels < 0, path, "has a negative label")
    return _Columns(
        labels=labels,
        widths=images["width"].astype(np.int32),
        heights=images["height"].astype(np.int32),
        is_raw=images["mode"] == layout.MODE_RAW,
        positions=positions.astype(np.int64),
        sizes=sizes.astype(np.int64),
        num_bytes=num_bytes,
    )


def _read(file: BinaryIO, dtype: np.dtype[np.void], count: int, offset: int, path: Path) -> NDArray[np.void]:
    """`count` records at `offset`."""
    file.seek(offset)
    array = np.fromfile(file, dtype, count)
    if len(array) < count:
        raise FeedrateError(f"{path} ends where its tables should be: it was cut short, {_REMEDY}")
    return array


def _check_header(header: np.void, num_bytes: int, path: Path) -> int:
    """Refuse a header that cannot be true of a file of this size; return where the allocation table starts."""
    version, num_fields, table_start = (int(header[name]) for name in ("version", "num_fields", "alloc_table_ptr"))
    if version != layout.VERSION:
        raise FeedrateError(
            f"{path} is not a .beton file of version {layout.VERSION} (it starts with {version}): {_REMEDY}"
        )
    if table_start == 0:
        raise FeedrateError(f"{path} has no allocation table: its conversion was interrupted, {_REMEDY}")
    if table_start >= num_bytes:
        raise FeedrateError(
            f"{path} has {num_bytes:,} bytes and its allocation table should start at {table_start:,}:"
            f" it was cut short, {_REMEDY}"
        )
    if (num_bytes - table_start) % layout.ALLOCATION.itemsize:
        raise FeedrateError(
            f"{path} ends in the middle of an entry of its allocation table: it was cut short, {_REMEDY}"
        )
    if header["num_samples"] == 0:
        raise FeedrateError(f"{path} holds no samples: {_REMEDY}")
    if num_fields == 0 or layout.metadata_start(num_fields) > table_start:
        raise FeedrateError(f"{path} claims {num_fields} fields, which do not fit in it: it is damaged, {_REMEDY}")
    return table_start


def _choose_fields(fields: NDArray[np.void], path: Path) -> tuple[str, str, np.dtype[np.void]]:
    """Names of the image's and of the label's part of a metadata record, and the record itself."""
    type_ids = [int(type_id) for type_id in fields["type_id"]]
    names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in fields["name"]]
    for name, type_id in zip(names, type_ids, strict=True):
        if not layout.known_type(type_id):
            raise FeedrateError(
                f"{path} has field '{name}' of type {type_id}, whose layout is unknown: write it without that field"
            )
    integers = [i for i, type_id in enumerate(type_ids) if type_id == layout.TYPE_INT]
    if layout.TYPE_IMAGE not in type_ids or not integers:
        raise FeedrateError(
            f"{path} has the fields {', '.join(names)}: an image and an integer label are needed, {_REMEDY}"
        )
    label = next((i for i in integers if names[i] == "label"), integers[0])
    return f"f{type_ids.index(layout.TYPE_IMAGE)}", f"f{label}", layout.metadata_dtype(type_ids)


def _sizes_of(positions: NDArray[np.uint64], table: NDArray[np.void], path: Path) -> NDArray[np.uint64]:
    """uint64 [N]: the size the allocation table gives to each position; FFCV's entries come in any order."""
    pointers, sizes = np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])
    if not np.array_equal(pointers, positions):
        order = np.argsort(pointers, kind="stable")
        pointers, sizes = pointers[order], sizes[order]
        found = np.minimum(np.searchsorted(pointers, positions), len(pointers) - 1)
        _refuse(pointers[found] != positions, path, "has no entry in the allocation table")
        sizes = sizes[found]
    return sizes


def _check_images(images: NDArray[np.void], sizes: NDArray[np.uint64], path: Path) -> None:
    mode, width, height = (images[name] for name in ("mode", "width", "height"))
    _refuse((mode != layout.MODE_JPG) & (mode != layout.MODE_RAW), path, "is neither a JPEG nor raw pixels")
    _refuse((width == 0) | (height == 0), path, "has no pixels")
    _refuse(sizes == 0, path, "has no bytes")
    num_pixel_bytes = 3 * width.astype(np.uint64) * height.astype(np.uint64)
    _refuse((mode == layout.MODE_RAW) & (sizes != num_pixel_bytes), path, "has not the bytes its width and height need")


def _refuse(wrong: NDArray[np.bool_], path: Path, complaint: str) -> None:
    """Raise a sentence about the first sample marked in `wrong`, if any."""
    if wrong.any():
        first = int(wrong.argmax())
        raise FeedrateError(f"{path}: sample {first} {complaint} ({int(wrong.sum()):,} such): it is damaged, {_REMEDY}")
