"""Records in FFCV's container, whoever wrote it.

The file is checked as a whole before anything is used, because FFCV itself checks nothing: after an interrupted
conversion its reader takes the entire file for an allocation table and its decoder ends the process.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from . import beton_layout as layout
from .errors import FeedrateError
from .mapped_file import MappedFile, MappedRecords
from .records import ChannelStatistics
from .seek_points import SeekPoints
from .soundness import PACK_AGAIN, refuse_samples

_MOST_CLASSES = 1 << 20  # a name is made for each label of a bare file: a damaged label must not take all memory


class BetonRecords(MappedRecords):
    """One `.beton` file, memory-mapped. Fulfils `loaders.records.Records`; classes are "0", "1", … unless given.

    `positions` and `sizes` (int64 [N]) say where in the file each sample's bytes lie.
    """

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...] | None = None,
        channels: ChannelStatistics | None = None,
        seek_points: SeekPoints | None = None,
    ) -> None:
        self.path = path
        self.channels = channels
        self.seek_points = seek_points
        try:
            with open(path, "rb") as file:
                columns = _read_columns(file, path)
                modified_ns = os.fstat(file.fileno()).st_mtime_ns
        except OSError as error:
            raise FeedrateError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        self.labels = columns.labels
        self.widths = columns.widths
        self.heights = columns.heights
        self.is_raw = columns.is_raw
        self.positions = columns.positions
        self.sizes = columns.sizes
        highest = int(self.labels.max())
        if highest >= _MOST_CLASSES:
            raise FeedrateError(f"{path} has label {highest}, {_MOST_CLASSES:,} or more: it is damaged, {PACK_AGAIN}")
        self.classes = tuple(str(label) for label in range(highest + 1)) if classes is None else classes
        if highest >= len(self.classes):
            raise FeedrateError(f"{path} has label {highest} and only {len(self.classes)} classes: {PACK_AGAIN}")
        self._file = MappedFile(path, columns.num_bytes, modified_ns)

    def close(self) -> None:
        """See `MappedRecords`."""
        super().close()
        if self.seek_points is not None:
            self.seek_points.close()


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
        raise FeedrateError(f"{path} has {num_bytes} bytes, too few for a .beton file: {PACK_AGAIN}")
    header = _read(file, layout.HEADER, 1, 0, path)[0]
    table_start = _check_header(header, num_bytes, path)
    num_fields, num_samples = int(header["num_fields"]), int(header["num_samples"])
    fields = _read(file, layout.FIELD, num_fields, layout.HEADER.itemsize, path)
    image, label, record = _choose_fields(fields, path)
    first_data = layout.metadata_start(num_fields) + num_samples * record.itemsize
    if first_data > table_start:
        raise FeedrateError(f"{path} claims {num_samples:,} samples, more than fit in it: it is damaged, {PACK_AGAIN}")
    metadata = _read(file, record, num_samples, layout.metadata_start(num_fields), path)
    num_entries = (num_bytes - table_start) // layout.ALLOCATION.itemsize
    if not num_samples <= num_entries <= num_samples * num_fields:
        raise FeedrateError(
            f"{path} has {num_samples:,} samples and {num_entries:,} entries in its allocation table:"
            f" it is damaged or was cut short, {PACK_AGAIN}"
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
    refuse_samples(outside, path, "lies outside the file's data")
    _check_images(images, sizes, path)
    refuse_samples(labels < 0, path, "has a negative label")
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
        raise FeedrateError(f"{path} ends where its tables should be: it was cut short, {PACK_AGAIN}")
    return array


def _check_header(header: np.void, num_bytes: int, path: Path) -> int:
    """Refuse a header that cannot be true of a file of this size; return where the allocation table starts."""
    version, num_fields, table_start = (int(header[name]) for name in ("version", "num_fields", "alloc_table_ptr"))
    if version != layout.VERSION:
        raise FeedrateError(
            f"{path} is not a .beton file of version {layout.VERSION} (it starts with {version}): {PACK_AGAIN}"
        )
    if table_start == 0:
        raise FeedrateError(f"{path} has no allocation table: its conversion was interrupted, {PACK_AGAIN}")
    if table_start >= num_bytes:
        raise FeedrateError(
            f"{path} has {num_bytes:,} bytes and its allocation table should start at {table_start:,}:"
            f" it was cut short, {PACK_AGAIN}"
        )
    if (num_bytes - table_start) % layout.ALLOCATION.itemsize:
        raise FeedrateError(
            f"{path} ends in the middle of an entry of its allocation table: it was cut short, {PACK_AGAIN}"
        )
    if header["num_samples"] == 0:
        raise FeedrateError(f"{path} holds no samples: {PACK_AGAIN}")
    if num_fields == 0 or layout.metadata_start(num_fields) > table_start:
        raise FeedrateError(f"{path} claims {num_fields} fields, which do not fit in it: it is damaged, {PACK_AGAIN}")
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
    image = _one_of(names, type_ids, layout.TYPE_IMAGE, "image", path)
    label = _one_of(names, type_ids, layout.TYPE_INT, "label", path)
    return f"f{image}", f"f{label}", layout.metadata_dtype(type_ids)


def _one_of(names: list[str], type_ids: list[int], wanted: int, name: str, path: Path) -> int:
    """Which field of type `wanted` is meant: the one called `name`, or the only one."""
    of_type = [i for i, type_id in enumerate(type_ids) if type_id == wanted]
    if not of_type:
        raise FeedrateError(
            f"{path} has the fields {', '.join(names)}: an image and an integer label are needed, {PACK_AGAIN}"
        )
    called = [i for i in of_type if names[i] == name]
    if len(called) != 1 and len(of_type) > 1:
        # to take any of them might be to learn each sample's own number
        kind = {layout.TYPE_IMAGE: "images", layout.TYPE_INT: "integers"}[wanted]
        several = ", ".join(repr(names[i]) for i in of_type)
        raise FeedrateError(
            f"{path} has several {kind}, {several}, and none alone is called '{name}', as the one to take must be:"
            " write it with that name, or read it by records of your own (docs/extending.md)"
        )
    return (called or of_type)[0]


def _sizes_of(positions: NDArray[np.uint64], table: NDArray[np.void], path: Path) -> NDArray[np.uint64]:
    """uint64 [N]: the size the allocation table gives to each position; FFCV's entries come in any order."""
    pointers, sizes = np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])
    if not np.array_equal(pointers, positions):
        order = np.argsort(pointers, kind="stable")
        pointers, sizes = pointers[order], sizes[order]
        found = np.minimum(np.searchsorted(pointers, positions), len(pointers) - 1)
        refuse_samples(pointers[found] != positions, path, "has no entry in the allocation table")
        sizes = sizes[found]
    return sizes


def _check_images(images: NDArray[np.void], sizes: NDArray[np.uint64], path: Path) -> None:
    mode, width, height = (images[name] for name in ("mode", "width", "height"))
    refuse_samples((mode != layout.MODE_JPG) & (mode != layout.MODE_RAW), path, "is neither a JPEG nor raw pixels")
    refuse_samples((width == 0) | (height == 0), path, "has no pixels")
    refuse_samples(sizes == 0, path, "has no bytes")
    num_pixel_bytes = 3 * width.astype(np.uint64) * height.astype(np.uint64)
    refuse_samples(
        (mode == layout.MODE_RAW) & (sizes != num_pixel_bytes), path, "has not the bytes its width and height need"
    )
