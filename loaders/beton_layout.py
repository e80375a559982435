"""The bytes of a `.beton` file (FFCV's container, version 2), shared by our reader and our writer.

    header            24 bytes
    field descriptors num_fields × 1041 bytes
    metadata          num_samples × one aligned record
    zeros             up to a multiple of page_size
    pages             the images' bytes; no sample crosses a page's border
    allocation table  24 bytes an entry, from alloc_table_ptr to the end of the file

All numbers are little-endian and all positions count from the start of the file. Source: FFCV 1.0.2, `ffcv/types.py`,
`ffcv/fields/` and `ffcv/writer.py`, and files it wrote.
"""

import numpy as np

VERSION = 2
MODE_JPG, MODE_RAW = 0, 1
TYPE_INT, TYPE_IMAGE = 1, 2
NAME_BYTES = 16

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", (NAME_BYTES,)), ("arguments", "<u1", (1024,))])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
_RECORD_OF_TYPE = {  # float, int, image, bytes, ndarray, JSON, tensor
    0: np.dtype("<f8"),
    TYPE_INT: np.dtype("<i8"),
    TYPE_IMAGE: IMAGE,
    3: _BYTES,
    4: np.dtype("<u8"),
    5: _BYTES,
    6: np.dtype("<u8"),
}


def known_type(type_id: int) -> bool:
    """Whether a field of this type can be skipped or read."""
    return type_id in _RECORD_OF_TYPE


def metadata_dtype(type_ids: list[int]) -> np.dtype[np.void]:
    """One sample's metadata: fields "f0", "f1", … in the order of their descriptors, aligned as a C struct."""
    return np.dtype([(f"f{i}", _RECORD_OF_TYPE[type_id]) for i, type_id in enumerate(type_ids)], align=True)


def metadata_start(num_fields: int) -> int:
    """Where the first sample's metadata begins."""
    return HEADER.itemsize + num_fields * FIELD.itemsize


def round_up(position: int, page_size: int) -> int:
    """The first page border at or after `position`."""
    return -(-position // page_size) * page_size
