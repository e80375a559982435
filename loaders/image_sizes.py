"""How large the images of a folder are: read from the files once, and remembered between runs."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from .atomic import atomic_file
from .cache_folder import cache_folder
from .crops import MAX_SIDE_PX
from .errors import FeedrateError
from .folder_scan import COLUMNS, FileTable
from .packed_names import PackedNames
from .records import ScanProgress

_HEAD_BYTES = 4096  # holds the size in 9 of 10 JPEGs; in the others a preview or a colour profile comes first
_NUM_THREADS = 8  # for disks that answer slowly but many at once: 50,000 files a second from memory, as 1 thread does
_FILES_AT_ONCE = 1024
_MOST_NAMED = 5  # of the images that cannot be read


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
        named = [f"{folder / os.fsdecode(table.names[i])} ({failures[i]})" for i in sorted(failures)[:_MOST_NAMED]]
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


def _read_sizes(
    folder: Path, table: FileTable, indices: NDArray[np.int64], progress: ScanProgress | None
) -> dict[int, str]:
    """Fill in the sizes of these files; what could not be read comes back with its reason."""
    failures: dict[int, str] = {}
    prefix = os.fsencode(folder) + b"/"

    def read(chunk: NDArray[np.int64]) -> int:
        for index in chunk.tolist():
            try:
                width, height = image_size(prefix + table.names[index])
                if max(width, height) > MAX_SIDE_PX:  # which the plan would refuse by the sample's number alone
                    raise ValueError(f"it is {width}×{height} px, with a side above {MAX_SIDE_PX:,}")
                table.widths[index], table.heights[index] = width, height
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
    if known.names == table.names:
        here = there = np.arange(len(table))
    else:
        place = {known.names[index]: index for index in range(len(known))}
        found = np.array([place.get(table.names[index], -1) for index in range(len(table))], dtype=np.int64)
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
            columns = {name: stored[name] for name in COLUMNS}
            names, ends = stored["names"].tobytes(), stored["ends"]
        kinds = {name: column.dtype for name, column in columns.items()} | {"ends": ends.dtype}
        typed = kinds == {**COLUMNS, "ends": np.int64}
        table = FileTable(PackedNames(names, ends), **columns)
        fits = table.names.are_sound() and all(column.shape == (len(table),) for column in columns.values())
        sized = len(table) > 0 and min(table.widths.min(), table.heights.min()) >= 0
    except Exception:  # zipfile, zlib and NumPy raise many kinds of errors on damaged files
        return None
    return table if typed and fits and sized else None


def _save(cache: Path, table: FileTable) -> None:
    columns = {name: getattr(table, name) for name in COLUMNS} | {"ends": np.frombuffer(table.names.ends, np.int64)}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        own = cache.with_name(f"{cache.name}.{token_hex(8)}")  # several ranks may be scanning the same folder
        with atomic_file(own) as file:
            np.savez(file, names=np.frombuffer(table.names.joined, dtype=np.uint8), **columns)
        os.replace(own, cache)
    except OSError as error:
        warnings.warn(
            f"{cache} cannot be written ({error.strerror}), so image sizes will be read again next time:"
            " set FEEDRATE_CACHE to a folder that can be written to",
            stacklevel=2,
        )
