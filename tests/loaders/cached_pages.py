"""Which pages of a file are in the page cache, and how they get out of it."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest

from loaders.mapped_file import MappedFile

_libc = ctypes.CDLL(None, use_errno=True)


def in_memory(path, num_bytes: int) -> np.ndarray:
    """bool: which of the file's pages are in the page cache."""
    view = MappedFile(path, num_bytes).view(0, num_bytes)
    answer = np.zeros(-(-num_bytes // mmap.PAGESIZE), np.uint8)
    address = ctypes.c_void_p(view.ctypes.data)
    assert not _libc.mincore(address, ctypes.c_size_t(num_bytes), answer.ctypes.data_as(ctypes.c_void_p))
    return (answer & 1).astype(bool)


def forget(path, num_bytes: int) -> None:
    """Drop the file from the page cache; not all file systems can."""
    for _ in range(20):  # a page that somebody looks at just now stays
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if not in_memory(path, num_bytes).any():
            return
        time.sleep(0.1)
    pytest.skip("this file system keeps pages in memory")
