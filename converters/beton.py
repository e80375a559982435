"""Writes FFCV's container (`loaders.beton_layout`) front to back, in the order of the samples."""

from typing import BinaryIO

import numpy as np

from loaders import beton_layout as layout
from loaders.errors import FeedrateError

PAGE_BYTES = 8 << 20  # FFCV's default
_LARGEST_PAGE_BYTES = 1 << 31  # the header stores the page's size in 32 bits
_FIELDS = (("image", layout.TYPE_IMAGE), ("label", layout.TYPE_INT))  # as FFCV's own ImageNet files have them


class BetonWriter:
    """Fills an empty, seekable file; the layout depends on nothing but the samples and their order.

    Gaps at the ends of pages are never written, so they are holes where the file system has such. A sample larger than
    a page doubles the page: what is already written stays valid, since a larger page's borders are borders of the
    smaller ones too. Memory: 48 bytes a sample.
    """

    def __init__(self, file: BinaryIO, num_samples: int, page_bytes: int = PAGE_BYTES) -> None:
        self.page_bytes = page_bytes
        self._file = file
        self._num_added = 0
        self._metadata = np.zeros(num_samples, layout.metadata_dtype([type_id for _, type_id in _FIELDS]))
        self._table = np.zeros(num_samples, layout.ALLOCATION)
        self._position = layout.round_up(layout.metadata_start(len(_FIELDS)) + self._metadata.nbytes, page_bytes)
        file.seek(self._position)

    def add(self, data: bytes, is_raw: bool, width: int, height: int, label: int) -> None:
        """Append the next sample: an encoded JPEG, or width × height × 3 bytes of RGB."""
        size = len(data)
        while size > self.page_bytes:
            self.page_bytes *= 2
        if self.page_bytes > _LARGEST_PAGE_BYTES:
            raise FeedrateError(
                f"sample {self._num_added} takes {size:,} bytes and the format allows {_LARGEST_PAGE_BYTES:,}:"
                " shrink it (--max-side)"
            )
        if self._position % self.page_bytes + size > self.page_bytes:
            self._position = layout.round_up(self._position, self.page_bytes)
            self._file.seek(self._position)
        mode = layout.MODE_RAW if is_raw else layout.MODE_JPG
        self._metadata[self._num_added] = ((mode, width, height, self._position), label)
        self._table[self._num_added] = (self._num_added, self._position, size)
        self._file.write(data)
        self._position += size
        self._num_added += 1

    def finish(self) -> None:
        """Write the allocation table and what stands before the pages; until then no reader accepts the file."""
        assert self._num_added == len(self._metadata), "fewer samples were added than announced"
        header = np.zeros(1, layout.HEADER)
        header["version"] = layout.VERSION
        header["num_fields"] = len(_FIELDS)
        header["page_size"] = self.page_bytes
        header["num_samples"] = self._num_added
        header["alloc_table_ptr"] = layout.round_up(self._position, self.page_bytes)
        fields = np.zeros(len(_FIELDS), layout.FIELD)
        for field, (name, type_id) in zip(fields, _FIELDS, strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        self._file.seek(int(header["alloc_table_ptr"][0]))
        self._file.write(self._table.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + self._metadata.tobytes())
