"""The bytes of a WebDataset shard (a plain .tar), shared by our reader, our writer and what verifies them.

of each sample, in order    a header, the JPEG and zeros up to a block; a header and a block that holds the label
zeros                       up to a multiple of 20 blocks, two at least
"""

import tarfile
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = tarfile.BLOCKSIZE  # headers, and what contents are padded to
LABEL_BYTES = 2 * BLOCK_BYTES  # the label's member: a header and a block

_Bytes = TypeVar("_Bytes", int, NDArray[np.int64])


def image_name(number: int) -> str:
    """What the image of sample `number` is called in its shard."""
    return f"{number:09d}.jpg"


def label_name(number: int) -> str:
    """What its label is called there."""
    return f"{number:09d}.cls"


def padded(num_bytes: _Bytes) -> _Bytes:
    """What so many bytes take in a .tar, without their header."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def header(name: str, num_bytes: int) -> bytes:
    """The header of a file, without time or owner, so that the same samples give the same .tar."""
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    return member.tobuf(tarfile.USTAR_FORMAT)


def name_and_size(header: bytes) -> tuple[str, int] | None:
    """What the header of a file in a .tar says, None where it is not one."""
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return (member.name, member.size) if member.isreg() else None
