"""Writes FFCV's container (`loaders.beton_layout`): pages in the order of the samples, then the tables around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders import beton_layout as layout
from loaders.errors import FeedrateError

from .outputs import Payload, Rows, cut, pixel_bytes, write_at, write_blobs

PAGE_BYTES = 8 << 20  # FFCV's default
_LARGEST_PAGE_BYTES = 1 << 31  # the header stores the page's size in 32 bits
_FIELDS = (("image", layout.TYPE_IMAGE), ("label", layout.TYPE_INT))  # as FFCV's own ImageNet files have them
_RECORD = layout.metadata_dtype([type_id for _, type_id in _FIELDS])


@dataclass(frozen=True)
class BetonPlace:
    """See `outputs.Place`."""

    path: Path
    positions: NDArray[np.int64]

    def write(self, payloads: Sequence[Payload]) -> None:
        """Write the samples' JPEGs or pixels."""
        write_blobs(
            self.path,
            self.positions,
            [payload.encoded.pixels if payload.beton_is_raw else payload.encoded.jpeg for payload in payloads],
        )


class BetonOutput:
    """See `outputs.Output`. Room for the metadata of `most_samples` is left before the pages.

    Gaps at the ends of pages are never written, so they are holes where the file system has such. A sample larger than
    a page doubles the page: what is already written stays valid, since a larger page's borders are borders of the
    smaller ones too.
    """

    def __init__(self, folder: Path, split: str, most_samples: int, page_bytes: int = PAGE_BYTES) -> None:
        self._path = folder / f"{split}.beton"
        self._first_page_bytes = page_bytes
        self._most_samples = most_samples
        self._page_bytes, self._position = page_bytes, 0

    def place(self, rows: Rows, first_number: int) -> BetonPlace:
        """See `outputs.Output`."""
        positions = np.empty(len(rows), np.int64)
        for i, size in enumerate(_sizes(rows).tolist()):
            while size > self._page_bytes:
                self._page_bytes *= 2
            if self._page_bytes > _LARGEST_PAGE_BYTES:
                raise FeedrateError(
                    f"sample {first_number + i} takes {size:,} bytes and .beton allows {_LARGEST_PAGE_BYTES:,}:"
                    " shrink it (--max-side)"
                )
            if self._position % self._page_bytes + size > self._page_bytes:
                self._position = layout.round_up(self._position, self._page_bytes)
            positions[i] = self._position
            self._position += size
        rows["beton_position"] = positions
        return BetonPlace(self._path, positions)

    def restore(self, rows: Rows) -> None:
        """See `outputs.Output`."""
        self._page_bytes = self._first_page_bytes
        metadata_end = layout.metadata_start(len(_FIELDS)) + self._most_samples * _RECORD.itemsize
        self._position = layout.round_up(metadata_end, self._page_bytes)
        if len(rows):
            sizes = _sizes(rows)
            while self._page_bytes < sizes.max():
                self._page_bytes *= 2
            self._position = int(rows["beton_position"][-1] + sizes[-1])
        cut(self._path, self._position)

    def paths_of(self, rows: Rows) -> list[Path]:
        """See `outputs.Output`."""
        return [self._path]

    def finish(self, rows: Rows) -> list[Path]:
        """Write the allocation table and what stands before the pages; until then no reader accepts the file."""
        header = np.zeros(1, layout.HEADER)
        header["version"] = layout.VERSION
        header["num_fields"] = len(_FIELDS)
        header["page_size"] = self._page_bytes
        header["num_samples"] = len(rows)
        header["alloc_table_ptr"] = layout.round_up(self._position, self._page_bytes)
        fields = np.zeros(len(_FIELDS), layout.FIELD)
        for field, (name, type_id) in zip(fields, _FIELDS, strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        metadata = np.zeros(len(rows), _RECORD)
        image = metadata["f0"]
        image["mode"] = np.where(rows["beton_is_raw"], layout.MODE_RAW, layout.MODE_JPG)
        image["width"], image["height"], image["data_ptr"] = rows["width"], rows["height"], rows["beton_position"]
        metadata["f1"] = rows["label"]
        table = np.zeros(len(rows), layout.ALLOCATION)
        table["sample_id"] = np.arange(len(rows))
        table["ptr"], table["size"] = rows["beton_position"], _sizes(rows)
        write_at(self._path, int(header["alloc_table_ptr"][0]), table.tobytes())
        write_at(self._path, 0, header.tobytes() + fields.tobytes() + metadata.tobytes())
        return [self._path]


def _sizes(rows: Rows) -> NDArray[np.int64]:
    """int64 [N], what each sample takes."""
    return np.where(rows["beton_is_raw"], pixel_bytes(rows), rows["jpeg_bytes"])
