"""Which images lie in a folder, and in the folders of its classes."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError
from .packed_names import PackedNames

# torchvision's IMG_EXTENSIONS
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_NUM_THREADS = 8  # for network drives, which answer slowly but many at once; a local disk is as fast with one
_MOST_SUFFIXES = 3
COLUMNS = {"num_bytes": np.int64, "mtimes_ns": np.int64, "widths": np.int32, "heights": np.int32}


@dataclass(frozen=True)
class FileTable:
    """Files below one folder.

    names      their paths relative to it
    num_bytes  int64 [N];  mtimes_ns  int64 [N], time of the last change
    widths     int32 [N] pixels;  heights  int32 [N]; both 0 where not known
    """

    names: PackedNames
    num_bytes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, files: list[tuple[bytes, int, int]]) -> "FileTable":
        """From (name, bytes, time of change), sizes unknown."""
        return cls(
            names=PackedNames.of(name for name, _, _ in files),
            num_bytes=np.array([num_bytes for _, num_bytes, _ in files], dtype=np.int64),
            mtimes_ns=np.array([mtime for _, _, mtime in files], dtype=np.int64),
            widths=np.zeros(len(files), dtype=np.int32),
            heights=np.zeros(len(files), dtype=np.int32),
        )

    @classmethod
    def joined(cls, tables: list["FileTable"]) -> "FileTable":
        """One table of all their files, in order."""
        names = PackedNames()
        for table in tables:
            names.extend(table.names)
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
        return cls(names, **columns)


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image, as torchvision does."""
    return name.lower().endswith(_EXTENSIONS)


def holds_an_image(folder: Path) -> bool:
    """Whether one lies in the folder itself. Names beginning with a dot are none: macOS leaves `._a.jpg` of each."""
    with os.scandir(folder) as entries:
        return any(is_image_name(entry.name) and not entry.name.startswith(".") for entry in entries)


def subfolders(path: Path) -> Iterator[str]:
    """Names of the folders in it, in any order, without those that begin with a dot.

    Raises FeedrateError where that cannot be found out: of a folder that may not be read, a link that leads to itself.
    """
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir():
                    yield entry.name
    except OSError as error:
        raise _unreadable(error, path) from error


class WalkListener(Protocol):
    """Hears what a walk passes by, from several threads; whoever hands one in is told of what cannot be read instead of
    an error.
    """

    def unusable(self, path: str, reason: str) -> None:
        """A folder, or a file that is an image by its name, that cannot be looked at."""
        ...

    def ignored(self, path: str) -> None:
        """A file that is no image by its name, or whose name begins with a dot."""
        ...

    def has_unusable(self, path: str) -> bool:
        """Whether it was told of something unusable at this path or below."""
        ...


def list_classes(
    folder: Path,
    classes: Sequence[str] | None,
    listener: WalkListener | None = None,
    advance: Callable[[int], None] = lambda num_images: None,
) -> tuple[tuple[str, ...], NDArray[np.int64], FileTable]:
    """The classes, the label of each image in `folder/<class>/…`, int64 [N], and the images, class by class.

    classes  those of the training split; None: the folder's own, sorted
    advance  hears of each class how many images it has

    Raises FeedrateError where there are no class folders, and on a class that is not among `classes` or has no images,
    unless the listener was told of some that are unusable.
    """
    names = sorted(subfolders(folder))
    if not names:
        raise FeedrateError(f"{folder} holds no folders of classes: expected {folder}/<class>/<image>")
    classes = tuple(names if classes is None else classes)
    if odd := sorted(set(names) - set(classes)):
        raise FeedrateError(
            f"{folder / odd[0]} is a class that the training split does not have: every class of a split must occur in"
            " the training split, so remove it or add it there"
        )
    tables = []
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for table in threads.map(lambda name: walk_class(folder, name, listener), names):
            tables.append(table)
            advance(len(table))
    for name, table in zip(names, tables, strict=True):
        if not len(table) and (listener is None or not listener.has_unusable(f"{folder}/{name}")):
            raise FeedrateError(
                f"{folder / name} holds {_what_else(folder / name)}, but every folder there stands for a class: add"
                " images, or remove it"
            )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.repeat(np.array([label_of[name] for name in names], np.int64), [len(table) for table in tables])
    return classes, labels, FileTable.joined(tables)


def walk_class(folder: Path, class_name: str, listener: WalkListener | None = None) -> FileTable:
    """The images below `folder/class_name`, in torchvision's order: by their folder's path, then by name.

    Symbolic links are followed; names beginning with a dot are skipped. An empty class name stands for the folder
    itself. Without a listener, whatever cannot be read raises FeedrateError.
    """
    try:
        visited = sorted(_walk(f"{folder}/{class_name}", frozenset(), listener))
    except OSError as error:
        raise _unreadable(error, folder) from error
    skipped = len(f"{folder}/")
    return FileTable.of(
        [
            (os.fsencode(os.path.join(parent, name)[skipped:]), num_bytes, mtime_ns)  # noqa: PTH118 (no Path a file)
            for parent, files in visited
            for name, num_bytes, mtime_ns in sorted(files)
        ]
    )


def _unreadable(error: OSError, path: Path) -> FeedrateError:
    return FeedrateError(f"{error.filename or path} cannot be read ({error.strerror}): mend or remove it")


def _what_else(folder: Path) -> str:
    """What lies in a folder that has no image, and below it, in words; names that begin with a dot do not count."""
    suffixes: Counter[str] = Counter()
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = [name for name in files if not name.startswith(".")]
        suffixes.update(os.path.splitext(name)[1].lower() or "without a suffix" for name in names)  # noqa: PTH122
    if not suffixes:
        return "no images"
    num_files = suffixes.total()
    named = ", ".join(f"{num:,} {suffix}" for suffix, num in suffixes.most_common(_MOST_SUFFIXES))
    more = ", …" if len(suffixes) > _MOST_SUFFIXES else ""
    return f"{num_files:,} {'file' if num_files == 1 else 'files'}, none of a kind that is read ({named}{more})"


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
