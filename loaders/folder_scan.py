"""Which images lie in a folder and how large they are, remembered between runs."""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from .atomic import atomic_file
from .cache_folder import cache_folder
from .errors import FeedrateError
from .records import ScanProgress

# torchvision's IMG_EXTENSIONS
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_HEAD_BYTES = 4096  # holds the size in 9 of 10 JPEGs; in the others a preview or a colour profile comes first
_NUM_THREADS = 8  # for disks that answer slowly but many at once: 50,000 files a second from memory, as 1 thread does
_FILES_AT_ONCE = 1024
_MOST_NAMED = 5  # of the images that cannot be read
_COLUMNS = {"ends": np.int64, "num_bytes": np.int64, "mtimes_ns": np.int64, "widths": np.int32, "heights": np.int32}


@dataclass(frozen=True)
class FileTable:
    """Files below one folder.

    names      their paths relative to it, one after the other;  ends  int64 [N], where each ends
    num_bytes  int64 [N];  mtimes_ns  int64 [N], time of the last change
    widths     int32 [N] pixels;  heights  int32 [N]; both 0 where not known
    """

    names: bytes
    ends: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> bytes:
        """The path of file `index`, relative to the folder."""
        return self.names[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])]

    @classmethod
    def of(cls, files: list[tuple[bytes, int, int]]) -> "FileTable":
        """From (name, bytes, time of change), sizes unknown."""
        return cls(
            names=b"".join(name for name, _, _ in files),
            ends=np.cumsum([len(name) for name, _, _ in files], dtype=np.int64),
            num_bytes=np.array([num_bytes for _, num_bytes, _ in files], dtype=np.int64),
            mtimes_ns=np.array([mtime for _, _, mtime in files], dtype=np.int64),
            widths=np.zeros(len(files), dtype=np.int32),
            heights=np.zeros(len(files), dtype=np.int32),
        )

    @classmethod
    def joined(cls, tables: list["FileTable"]) -> "FileTable":
        """One table of all their files, in order."""
        starts = np.cumsum([0, *(len(table.names) for table in tables)])
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
        columns["ends"] = np.concatenate([table.ends + start for table, start in zip(tables, starts, strict=False)])
        return cls(names=b"".join(table.names for table in tables), **columns)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image, as torchvision does."""
    return name.lower().endswith(_EXTENSIONS)


class WalkListener(Protocol):
    """Hears what a walk passes by; whoever hands one in is told of what cannot be read instead of an error."""

    def unusable(self, path: str, reason: str) -> None:
        """A folder, or a file that is an image by its name, that cannot be looked at."""
        ...

    def ignored(self, path: str) -> None:
        """A file that is no image by its name, or whose name begins with a dot."""
        ...


def walk_class(folder: Path, class_name: str, listener: WalkListener | None = None) -> FileTable:
    """The images below `folder/class_name`, in torchvision's order: by their folder's path, then by name.

    Symbolic links are followed; names beginning with a dot are skipped. An empty class name stands for the folder
    itself. Without a listener, whatever cannot be read raises FeedrateError.
    """
    try:
        visited = sorted(_walk(f"{folder}/{class_name}", frozenset(), listener))
    except OSError as error:
        raise FeedrateError(f"{error.filename} cannot be read ({error.strerror}): mend or remove it") from error
    skipped = len(f"{folder}/")
    return FileTable.of(
        [
            (os.fsencode(os.path.join(parent, name)[skipped:]), num_bytes, mtime_ns)  # noqa: PTH118 (no Path a file)
            for parent, files in visited
            for name, num_bytes, mtime_ns in sorted(files)
        ]
    )


def measured(folder: Path, table: FileTable, progress: ScanProgress | None) -> FileTable:
    """The table with all sizes: those of unchanged files from the cache, the others read now and remembered.

    Raises FeedrateError naming the first files that have none, and how many more there are.
    """
    cache = _cache_path(folder)
    table = _with_known_sizes(table, _load(cache))
    unknown = np.flatnonzero(table.widths == 0)
    if not len(unknown):
        return table
    failures = _read_sizes(folder, table, unknown, progress)
    _save(cache, table)  # also when some failed: after mending them, the rest need not be read again
    if failures:
        named = [f"{folder / os.fsdecode(table.name(i))} ({failures[i]})" for i in sorted(failures)[:_MOST_NAMED]]
        more = f" and {len(failures) - len(named):,} more" if len(failures) > len(named) else ""
        raise FeedrateError(
            f"{', '.join(named)}{more} cannot be read as images: mend or remove them, or pack the folder without"
            " them (python tools/convert.py folder --on-bad skip)"
        )
    return table


def image_size(path: str | bytes) -> tuple[int, int]:
    """(width, height) in pixels as stored, EXIF rotation ignored, from the file's head alone where that will do."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD_BYTES)
    if head[:3] == b"\xff\xd8\xff":
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(head)
            return width, height
        except ValueError:
            pass  # the size stands further behind
    with Image.open(os.fsdecode(path)) as image:
        return image.size


def _walk(
    folder: str, above: frozenset[tuple[int, int]], listener: WalkListener | None
) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """(folder, its images as (name, bytes, time of change)) for it and all below, in any order."""
    files: list[tuple[str, int, int]] = []
    try:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in above:
            return  # a link to a folder that holds it
        above |= {(here.st_dev, here.st_ino)}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    if listener is not None and entry.is_file(follow_symlinks=False):
                        listener.ignored(entry.path)
                elif (is_folder := _is_folder(entry, listener)) is not None:
                    if is_folder:
                        yield from _walk(entry.path, above, listener)
                    else:
                        _look_at(entry, files, listener)
    except OSError as error:
        if listener is None:
            raise
        listener.unusable(error.filename or folder, error.strerror or str(error))
    yield folder, files


def _is_folder(entry: os.DirEntry[str], listener: WalkListener | None) -> bool | None:
    """None where the listener was told that it cannot be found out: a link that leads to itself, say."""
    try:
        return entry.is_dir()
    except OSError as error:
        if listener is None:
            raise
        listener.unusable(entry.path, error.strerror or str(error))
        return None


def _look_at(entry: os.DirEntry[str], files: list[tuple[str, int, int]], listener: WalkListener | None) -> None:
    """Add a file, if it is an image by its name."""
    if not is_image_name(entry.name):
        if listener is not None:
            listener.ignored(entry.path)
        return
    try:
        status = entry.stat()
    except OSError as error:
        if listener is None:
            raise
        reason = "it is a link to nothing" if entry.is_symlink() else error.strerror
        listener.unusable(entry.path, reason or str(error))
        return
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        if listener is None:
            raise OSError(errno.EINVAL, "it is not a regular file", entry.path)
        listener.unusable(entry.path, "it is not a regular file")
        return
    files.append((entry.name, status.st_size, status.st_mtime_ns))


def _read_sizes(
    folder: Path, table: FileTable, indices: NDArray[np.int64], progress: ScanProgress | None
) -> dict[int, str]:
    """Fill in the sizes of these files; what could not be read comes back with its reason."""
    failures: dict[int, str] = {}
    prefix = os.fsencode(folder) + b"/"

    def read(chunk: NDArray[np.int64]) -> int:
        for index in chunk.tolist():
            try:
                table.widths[index], table.heights[index] = image_size(prefix + table.name(index))
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, …
                failures[index] = str(error)
        return len(chunk)

    num_done = 0
    chunks = np.array_split(indices, -(-len(indices) // _FILES_AT_ONCE))
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for num_read in threads.map(read, chunks):
            num_done += num_read
            if progress:
                progress(num_done, len(indices))
    return failures


def _with_known_sizes(table: FileTable, known: FileTable | None) -> FileTable:
    """The table with the sizes of files that are what they were: same name, length and time of change."""
    if known is None:
        return table
    if known.names == table.names and np.array_equal(known.ends, table.ends):
        here = there = np.arange(len(table))
    else:
        place = {known.name(index): index for index in range(len(known))}
        found = np.array([place.get(table.name(index), -1) for index in range(len(table))], dtype=np.int64)
        here = np.flatnonzero(found >= 0)
        there = found[here]
    same = (known.num_bytes[there] == table.num_bytes[here]) & (known.mtimes_ns[there] == table.mtimes_ns[here])
    here, there = here[same], there[same]
    table.widths[here], table.heights[here] = known.widths[there], known.heights[there]
    return table


def _cache_path(folder: Path) -> Path:
    key = sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return cache_folder() / f"sizes-{key}.npz"


def _load(cache: Path) -> FileTable | None:
    """What was remembered, None if nothing was or it makes no sense."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in _COLUMNS}
            table = FileTable(names=stored["names"].tobytes(), **columns)
        ends = table.ends
        ordered = len(ends) > 0 and ends[0] > 0 and bool((np.diff(ends) > 0).all()) and ends[-1] == len(table.names)
        typed = all(
            columns[name].dtype == kind and columns[name].shape == ends.shape for name, kind in _COLUMNS.items()
        )
    except Exception:  # zipfile, zlib and NumPy raise many kinds of errors on damaged files
        return None
    return table if ordered and typed and min(table.widths.min(), table.heights.min()) >= 0 else None


def _save(cache: Path, table: FileTable) -> None:
    columns = {name: getattr(table, name) for name in _COLUMNS}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        own = cache.with_name(f"{cache.name}.{token_hex(8)}")  # several ranks may be scanning the same folder
        with atomic_file(own) as file:
            np.savez(file, names=np.frombuffer(table.names, dtype=np.uint8), **columns)
        os.replace(own, cache)
    except OSError as error:
        warnings.warn(
            f"{cache} cannot be written ({error.strerror}), so image sizes will be read again next time:"
            " set FEEDRATE_CACHE to a folder that can be written to",
            stacklevel=2,
        )
