"""A folder of images: `train/<class>/…` and `val/<class>/…`, or just `<class>/…`."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError, SampleError
from .folder_scan import FileTable, holds_an_image, list_classes, subfolders, walk_class
from .image_sizes import measured
from .records import ChannelStatistics, ScanProgress

# the words of each split, in any capitals; of several folders the one with the first counts
FOLDERS_OF = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test", "testing")}


def recognises(path: Path) -> bool:
    """Whether `path` is a folder with folders in it, which then are splits or classes."""
    return path.is_dir() and next(subfolders(path), None) is not None


def list_splits(path: Path) -> tuple[str, ...]:
    """The splits of the folder: those with a folder of their own, or "train" alone for `<class>/…`."""
    return tuple(split_folders(path))


def open_split(path: Path, split: str, progress: ScanProgress | None) -> "FolderRecords":
    """Open one split. Sizes are read once and kept in the user's cache; `progress` hears about listing and that.

    Samples are numbered as torchvision's `ImageFolder` numbers them, except that names beginning with a dot are
    skipped. A class has the same label in both splits. Raises FeedrateError on a class without images, a class that
    only the validation split has, and images whose size cannot be read.
    """
    folders = split_folders(path)
    folder = folders[split]
    num_listed = 0

    def listed(num_images: int) -> None:
        nonlocal num_listed
        num_listed += num_images
        if progress:
            progress(num_listed, 0)

    names = sorted(subfolders(folders.get("train", folder)))
    classes, labels, files = list_classes(folder, names, advance=listed)
    return FolderRecords(folder, classes, labels, measured(folder, files, progress))


def class_folders(path: Path) -> tuple[str, ...] | None:
    """The names of the classes, sorted; None where no image lies in such a folder itself, so it may be another form.

    Kaggle's `ILSVRC/` or folders of shards are no classes. Raises OSError, FeedrateError.
    """
    folders = split_folders(path)
    folder = folders.get("train") or folders["val"]
    names = tuple(sorted(subfolders(folder)))
    return names if any(holds_an_image(folder / name) for name in names) else None


def is_flat(path: Path) -> bool:
    """Whether images lie in this folder itself, which has no folders: nothing tells their classes."""
    return path.is_dir() and not recognises(path) and holds_an_image(path)


def open_unlabelled(path: Path, classes: tuple[str, ...], progress: ScanProgress | None) -> "FolderRecords":
    """The images of a flat folder, by name, for a model that knows `classes`; every label is 0 and says nothing."""
    files = walk_class(path, "")
    return FolderRecords(path, classes, np.zeros(len(files), np.int64), measured(path, files, progress))


def refuse_flat(path: Path) -> None:
    """Raise FeedrateError where `path` is a flat folder."""
    if is_flat(path):
        raise FeedrateError(
            f"{path} holds images and no class folders, so nothing tells what is on them: sort them into"
            f" {path}/<class>/, a folder for each class"
        )


class FolderRecords:
    """See `records.Records`."""

    def __init__(self, folder: Path, classes: tuple[str, ...], labels: NDArray[np.int64], files: FileTable) -> None:
        self.classes = classes
        self.labels = labels
        self.widths = files.widths
        self.heights = files.heights
        self.is_raw = np.zeros(len(files), dtype=np.bool_)
        self.channels: ChannelStatistics | None = None
        self._prefix = os.fsencode(folder) + b"/"
        self._names = files.names

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [size]: the file as it is now."""
        try:
            descriptor = os.open(self._path(index), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = np.empty(os.fstat(descriptor).st_size, dtype=np.uint8)
                num_read = 0
                while num_read < len(data) and (count := os.readv(descriptor, [data[num_read:].data])):
                    num_read += count
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SampleError(f"sample {index} ({self.where(index)}) cannot be read: {error.strerror}") from error
        if not num_read:
            raise SampleError(f"sample {index} ({self.where(index)}) is an empty file")
        return data[:num_read]

    def where(self, index: int) -> str:
        return os.fsdecode(self._path(index))

    def close(self) -> None:
        pass  # files are opened for a moment only

    def _path(self, index: int) -> bytes:
        return self._prefix + self._names[index]


def split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split there is; `path` itself, as "train", where there are classes alone.

    A split's folder is told from a class that happens to be called "train" by the folders in it.
    """
    found: dict[str, Path] = {}
    named = folders_named_like_splits(path)
    for split, folders in named.items():
        for folder in folders:
            if recognises(folder):
                found.setdefault(split, folder)
    if found:
        return found
    if sum(len(folders) for folders in named.values()) == len(list(subfolders(path))):
        raise FeedrateError(f"{path} holds no folders of classes: expected {path}/train/<class>/<image>")
    return {"train": path}


def folders_named_like_splits(path: Path) -> dict[str, list[Path]]:
    """The folders in `path` that are called as a split is, those to be preferred first."""
    names = sorted(subfolders(path), key=lambda name: (name != name.lower(), name))
    return {
        split: [path / name for word in words for name in names if name.lower() == word]
        for split, words in FOLDERS_OF.items()
    }
