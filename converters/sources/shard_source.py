"""WebDataset shards: .tar files where the parts of a sample stand together, `key.jpg` and `key.cls` or `key.json`."""

import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loaders.errors import FeedrateError
from loaders.folder_records import FOLDERS_OF, folders_named_like_splits
from loaders.folder_scan import holds_an_image, subfolders

from ..progress import Advance, Phase
from ..samples import BadSample, Samples
from .class_names import class_names
from .shard_labels import ShardLabels
from .tar_members import Member, MemberList, TarSamples, tar_members

IMAGE_PARTS = ("jpg", "jpeg", "png", "ppm", "webp", "bmp", "tif", "tiff")  # the first that a sample has is its image
_KEY_AND_PART = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as the package webdataset splits names
_META = re.compile(r"__[^/]*__($|/)")  # likewise: what it skips
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LARGEST_LABEL_BYTES = 1 << 20


@dataclass
class _Listed:
    """What one split's shards hold."""

    members: MemberList = field(default_factory=MemberList)
    bad: list[BadSample] = field(default_factory=list)
    num_ignored: int = 0


def recognise(path: Path) -> str | None:
    """ "any" where there is a .tar, or a compressed one, which opening refuses."""
    if path.is_file():
        return "any" if path.name.lower().endswith((".tar", *_COMPRESSED)) else None
    return "any" if any(_shards(folder) for folder in _folders(path)) else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """List every split: shards in the order of their names, samples as they stand in them.

    Shards lie in `train/` and `val/` or have these words in their names; otherwise all are "train". A sample without
    an image or a label is a bad one. Raises FeedrateError for damaged or compressed shards, and for labels that
    classes.txt or classes.json beside them does not name.
    """
    shards, left_out = _by_split(path)
    labels, listed = ShardLabels(), {}
    for split in sorted(shards):
        with phase(f"list {split}", 0) as advance:
            listed[split] = _list(shards[split], labels, advance)
    root = path if path.is_dir() else path.parent
    classes, label_of = labels.settle(root)
    names = class_names(classes, [root, root.parent])
    splits: dict[str, Samples] = {}
    for split, found in listed.items():
        found.members.labels = array("q", label_of[np.array(found.members.labels, np.int64)].tobytes())
        samples = TarSamples(shards[split], found.members, classes, names, found.bad, found.num_ignored)
        samples.notes.update({"left_out": [shard.name for shard in left_out]} if left_out else {})
        splits[split] = samples
    return splits


def _folders(path: Path) -> list[Path]:
    """Where shards may lie."""
    if not path.is_dir():
        return []
    return [path, *(folder for folders in folders_named_like_splits(path).values() for folder in folders)]


def _shards(folder: Path) -> list[Path]:
    endings = (".tar", *_COMPRESSED)
    return sorted(
        entry for entry in folder.iterdir() if entry.name.lower().endswith(endings) and not entry.name.startswith(".")
    )


def _by_split(path: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The shards of each split, and those of a further validation split, of which only the first counts."""
    if path.is_file():
        found = {_word(path.name): [path]}
    else:
        found = {}
        for folder in _folders(path):
            for shard in _shards(folder):
                found.setdefault(_word(shard.name) if folder == path else folder.name.lower(), []).append(shard)
        _refuse_class_folders(path)
    for shard in (shard for shards in found.values() for shard in shards):
        if shard.suffix.lower() != ".tar":
            raise FeedrateError(f"{shard} is compressed: decompress it, since samples are read in place")
    splits: dict[str, list[Path]] = {}
    left_out: list[Path] = []
    for split, words in FOLDERS_OF.items():
        there = [found[word] for word in words if word in found]
        splits.update({split: there[0]} if there else {})
        left_out += [shard for shards in there[1:] for shard in shards]
    return splits, left_out


def _word(name: str) -> str:
    """The split's word in a shard's name: "imagenet1k-validation-03.tar" has "validation"."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((word for word in FOLDERS_OF["val"] if word in words), "train")


def _refuse_class_folders(path: Path) -> None:
    """Refuse to guess between shards and class folders that lie side by side."""
    folders = _folders(path)
    for folder in folders:
        for name in subfolders(folder):
            if folder / name in folders:
                continue
            if holds_an_image(folder / name):
                raise FeedrateError(
                    f"{path} holds both .tar files and class folders such as {folder / name}: move one of them away"
                )


def _list(shards: Sequence[Path], labels: ShardLabels, advance: Advance) -> _Listed:
    """All samples of a split, with the labels' numbers so far."""
    listed = _Listed()
    for number, shard in enumerate(shards):
        num_before = len(listed.members)
        descriptor = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _ShardReader(shard, number, descriptor, listed, labels).read()
        finally:
            os.close(descriptor)
        advance(len(listed.members) - num_before, 0)
    return listed


class _ShardReader:
    """Groups the members of one shard to samples, as `webdataset` does, and adds them to a list."""

    def __init__(self, shard: Path, number: int, descriptor: int, listed: _Listed, labels: ShardLabels) -> None:
        self._shard = shard
        self._number = number
        self._descriptor = descriptor
        self._listed = listed
        self._labels = labels

    def read(self) -> None:
        """Add all samples of the shard. Raises FeedrateError where a name stands twice in it."""
        key: str | None = None
        parts: dict[str, Member] = {}
        seen: set[str] = set()
        for member in tar_members(self._shard):
            match = _KEY_AND_PART.fullmatch(member.name)
            if match is None or _META.match(member.name):
                self._listed.num_ignored += 1
                continue
            if match[1] != key:
                self._add(key, parts)
                key, parts = match[1], {}
                if key in seen:
                    raise FeedrateError(
                        f"{self._shard} holds parts of '{key}' in two places: write it again, with each sample's parts"
                        " together and each key once"
                    )
                seen.add(key)
            part = match[2].lower()
            if part in parts:
                raise FeedrateError(f"{self._shard} holds {member.name} twice: write it again, with each name once")
            parts[part] = member
        self._add(key, parts)

    def _add(self, key: str | None, parts: dict[str, Member]) -> None:
        if key is None:
            return
        part = next((part for part in IMAGE_PARTS if part in parts), None)
        try:
            if part is None:
                raise ValueError(f"it has no image, only {', '.join(sorted(parts))}")
            if parts[part].is_link:
                raise ValueError("it is a link inside the shard")
            label = self._label(parts)
        except ValueError as error:
            place = parts[part].name if part is not None else key
            self._listed.bad.append(BadSample(f"{self._shard.name}/{place}", f"{self._shard}, {place}", str(error)))
            return
        image = parts[part]
        name = f"{self._shard.name}/{image.name}"
        self._listed.members.add(name, image.position, image.num_bytes, label, self._number)

    def _label(self, parts: dict[str, Member]) -> int:
        """From `.cls` or `.json` ("label" or "cls"). Raises ValueError."""
        part = next((part for part in ("cls", "json") if part in parts), None)
        if part is None or parts[part].is_link:
            raise ValueError("it has no label (.cls or .json)")
        if parts[part].num_bytes > _LARGEST_LABEL_BYTES:
            raise ValueError(f"its .{part} has {parts[part].num_bytes:,} bytes, too many for a label")
        content = os.pread(self._descriptor, parts[part].num_bytes, parts[part].position)
        return self._labels.add(content, part, f"{self._shard}, {parts[part].name}")
