"""Class folders: `train/<class>/…` and `val/<class>/…` (or whatever a split is called), or just `<class>/…`."""

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError
from loaders.folder_records import folders_named_like_splits, recognises, split_folders
from loaders.folder_scan import FileTable, holds_an_image, is_image_name, list_classes, subfolders

from ..progress import Advance, Phase
from ..samples import BadSample, Samples, Stored
from .class_names import class_names


@dataclass
class FileSamples:
    """One file a sample, all below `folder`. Fulfils `converters.samples.Samples`."""

    folder: Path
    classes: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    files: FileTable
    bad: Sequence[BadSample] = ()
    num_ignored: int = 0
    notes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_bytes = self.files.num_bytes

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, index: int) -> Stored:
        """A whole file, called by its path below the folder."""
        name = os.fsdecode(self.files.names[index])
        return Stored(name, f"{self.folder}/{name}")

    def fingerprint(self) -> str:
        """See `Samples`."""
        digest = sha256("\0".join(self.classes).encode("utf-8", "surrogateescape") + b"\0\0" + self.files.names.joined)
        digest.update(self.files.names.ends)
        for column in (self.files.num_bytes, self.files.mtimes_ns, self.labels):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


class Notices:
    """What a walk below `folder` could not use, or passed by. See `loaders.folder_scan.WalkListener`."""

    def __init__(self, folder: Path) -> None:
        self.bad: list[BadSample] = []
        self.num_ignored = 0
        self.ignored_suffixes: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._skipped = len(f"{folder}/")

    def unusable(self, path: str, reason: str) -> None:
        """Remember a bad sample, called by its path below the folder."""
        self.bad.append(BadSample(path[self._skipped :], path, reason))

    def ignored(self, path: str) -> None:
        """Count it, and its suffix."""
        name = os.path.basename(path)  # noqa: PTH119 (no Path a file)
        suffix = "hidden" if name.startswith(".") else os.path.splitext(name)[1].lower()  # noqa: PTH122
        with self._counting:
            self.num_ignored += 1
            self.ignored_suffixes[suffix] += 1

    def has_unusable(self, path: str) -> bool:
        """See `WalkListener`."""
        return any(bad.where == path or bad.where.startswith(f"{path}/") for bad in self.bad)

    def notes(self) -> dict[str, object]:
        """For the manifest: how many files of which suffixes, or hidden, were passed by, the most frequent first."""
        by_count = sorted(self.ignored_suffixes.items(), key=lambda item: (-item[1], item[0]))
        return {"ignored_suffixes": dict(by_count)} if by_count else {}


def recognise(path: Path) -> str | None:
    """ "any" where there are folders, which then are splits or classes."""
    return "any" if recognises(path) else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """List every split, numbered as torchvision's `ImageFolder` numbers it, names beginning with a dot left out.

    A class has the same label in both splits. Folders beside those of the splits are left out and noted, a second
    validation split too. Raises FeedrateError on a class without images, on a class that only
    the validation split has, and on validation images that lie in no class folders.
    """
    folders = split_folders(path)
    left_out: list[str] = []
    if path not in folders.values():
        _refuse_flat(path, folders)
        left_out = sorted(f"{name}/" for name in subfolders(path) if path / name not in folders.values())
    classes = None
    splits: dict[str, Samples] = {}
    for split in sorted(folders):  # "train" comes first: its classes are those of both
        with phase(f"list {split}", 0) as advance:
            samples = splits[split] = list_folder(folders[split], classes, advance, [path, path.parent])
        samples.notes.update({"left_out": left_out} if left_out else {})
        classes = splits[split].classes
    return splits


def list_folder(
    folder: Path, classes: tuple[str, ...] | None, advance: Advance, named_in: Sequence[Path]
) -> FileSamples:
    """List `folder/<class>/…`. `classes` are those of the training split (None: its own folders are the classes)."""
    notices = Notices(folder)
    num_outside = _num_outside(folder, notices)
    classes, labels, files = list_classes(folder, classes, notices, lambda num_images: advance(num_images, 0))
    notes = {**notices.notes(), **({"num_images_outside_class_folders": num_outside} if num_outside else {})}
    return FileSamples(
        folder,
        classes,
        class_names(classes, named_in),
        labels,
        files,
        sorted(notices.bad, key=lambda bad: bad.name),
        notices.num_ignored,
        notes,
    )


def _num_outside(folder: Path, notices: Notices) -> int:
    """How many images lie beside the class folders, so that no class has them; other files are noticed as ignored.

    A link to nothing would have been a class, so it is noticed and not passed over.
    """
    num_outside = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not Path(entry.path).exists():
                notices.unusable(entry.path, "it is a link to nothing")
            elif not entry.is_dir():
                is_image = is_image_name(entry.name) and not entry.name.startswith(".")
                num_outside += is_image
                if not is_image:
                    notices.ignored(entry.path)
    return num_outside


def _refuse_flat(path: Path, found: Mapping[str, Path]) -> None:
    """Refuse a split whose images lie in no class folders, which would otherwise be left out without a word."""
    for split, folders in folders_named_like_splits(path).items():
        for folder in () if split in found else folders:
            if holds_an_image(folder):
                kaggle = ", put LOC_val_solution.csv (Kaggle's ImageNet) into it" if split == "val" else ""
                raise FeedrateError(
                    f"{folder} holds images and no class folders: sort them into {folder}/<class>/{kaggle},"
                    " or move it away"
                )
