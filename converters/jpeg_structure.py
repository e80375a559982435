"""What a JPEG's markers say, without decoding it: which kind it is, and whether it is all there.

Source: ITU-T T.81, annex B.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JPEG_START = b"\xff\xd8\xff"
_EOI, _SOS = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 … SOF15; the three left out are DHT, JPG and DAC
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


class NotAJpeg(ValueError):
    """The markers make no sense; the message says which."""


@dataclass(frozen=True)
class JpegHead:
    """What stands before the compressed data.

    is_baseline  Huffman-coded, sequential, 8 bits: what every decoder reads fastest
    data_start   where the first scan's compressed data begins
    """

    is_baseline: bool
    data_start: int


def read_head(data: bytes) -> JpegHead:
    """Walk the markers up to the first scan. Raises NotAJpeg."""
    position, is_baseline = 2, None
    while True:
        marker, start, end = _segment(data, position)
        if marker in _FRAMES and end - start >= 6:
            is_baseline = marker in (0xC0, 0xC1) and data[start] == 8  # bits
        elif marker == _SOS:
            if is_baseline is None:
                raise NotAJpeg("it has a scan and no frame before it")
            return JpegHead(is_baseline, data_start=end)
        position = end


def is_whole(stored: NDArray[np.uint8], head: JpegHead) -> bool:
    """Whether the compressed data of a baseline JPEG reach the end marker without another marker on the way.

    stored  uint8 [size]

    Finds what is cut short and what was overwritten by other files' bytes, at 5 GB/s. Damage that looks like data is
    not found, and a file in several scans is not judged: False is no verdict, but a reason to decode.
    """
    scan = stored[head.data_start :]
    escapes = np.flatnonzero(scan[:-1] == 0xFF)
    following = scan[escapes + 1]
    markers = following[(following != 0) & ((following < 0xD0) | (following > 0xD7))]
    return len(markers) > 0 and int(markers[0]) == _EOI


def _segment(data: bytes, position: int) -> tuple[int, int, int]:
    """(marker, start, end) of the marker segment at `position`, fill bytes skipped."""
    if data[position : position + 1] != b"\xff":
        raise NotAJpeg(f"no marker at byte {position}")
    while data[position : position + 1] == b"\xff":
        position += 1
    if position >= len(data):
        raise NotAJpeg("it ends in its header")
    marker = data[position]
    if marker in _BARE:
        return marker, position + 1, position + 1
    if marker == _EOI or position + 3 > len(data):
        raise NotAJpeg("it ends in its header")
    end = position + 1 + int.from_bytes(data[position + 1 : position + 3], "big")
    if end < position + 3 or end > len(data):
        raise NotAJpeg("it ends in its header")
    return marker, position + 3, end
