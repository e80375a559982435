"""Stage "read" of a sample, told apart from the decoding that, of a mapped file, would do the reading."""

import numpy as np
from numpy.typing import NDArray

from .mapped_file import bring_in
from .records import Records, lie_in_memory
from .stage_writer import StageWriter


def read_timed(
    records: Records, index: int, rect: list[int] | None, times: StageWriter, images: int = 1
) -> NDArray[np.uint8]:
    """`records.read(index)`, noted as stage "read", whose pages have been brought into memory where it is noted.

    rect    (left, top, width, height) of what will be needed: of pixels only its rows are brought in; None: all
    images  1, or 0 where the sample has been read, and counted, before
    """
    if not times.is_on or lie_in_memory(records):
        return records.read(index)
    with times.stage("read", images):
        data = records.read(index)
        needed = _rows(records, index, rect, data) if rect is not None and records.is_raw[index] else data
        bring_in(needed)
        return data


def _rows(records: Records, index: int, rect: list[int], data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Those that the rectangle covers, as far as they are there."""
    _, top, _, height = rect
    stride = 3 * int(records.widths[index])
    return data[max(0, top) * stride : max(0, top + height) * stride]
