"""Making the system forget the contents of files, and checking that it did."""

import ctypes
import os
from pathlib import Path

from loaders.errors import FeedrateError
from loaders.page_eviction import resident_pages

_MADV_DONTNEED = 4
_MOST_LEFT = 0.05


def evict(folder: Path) -> None:
    """Drop the files in `folder` from the page cache, those that this process has mapped, too.

    Raises FeedrateError where more than a twentieth stays: then nothing that follows is a cold read.
    """
    paths = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size]
    _unmap_pages(paths)
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    left, total = resident_pages((path, 0, path.stat().st_size) for path in paths)
    if left > _MOST_LEFT * total:
        raise FeedrateError(
            f"{left:,} of {total:,} pages of {folder} stay in the page cache: another process may have them mapped"
        )


def _unmap_pages(paths: list[Path]) -> None:
    """Let go of the pages this process has of these files; they come back from the file when touched again."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    names = {str(path.resolve()) for path in paths}
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        # never memory that was written to: it would be lost
        if len(words) == 6 and words[5] in names and "w" not in words[1]:
            start, stop = (int(word, 16) for word in words[0].split("-"))
            libc.madvise(start, stop - start, _MADV_DONTNEED)
