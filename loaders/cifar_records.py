"""CIFAR-10 and CIFAR-100 as distributed for Python or in binary: a tar archive or its folder.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .addresses import Addresses, lying_in
from .cifar_binary import BinaryForm
from .cifar_pickles import PickledForm
from .errors import FeedrateError
from .records import ChannelStatistics, ScanProgress

_SIDE_PX = 32


class _Form(Protocol):
    """How the files of an archive are written. Both raise whatever the damage leads to."""

    def class_names(self, content: bytes) -> tuple[str, ...]: ...
    def images(self, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...


@dataclass(frozen=True)
class _Archive:
    """What one of the archives is called and holds."""

    dataset: str
    folder: str
    tar: str
    files: dict[str, tuple[str, ...]]  # by split
    meta: str
    form: _Form


_ARCHIVES = (
    _Archive(
        dataset="cifar10",
        folder="cifar-10-batches-py",
        tar="cifar-10-python.tar.gz",
        files={"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "val": ("test_batch",)},
        meta="batches.meta",
        form=PickledForm(b"labels", b"label_names"),
    ),
    _Archive(
        dataset="cifar100",
        folder="cifar-100-python",
        tar="cifar-100-python.tar.gz",
        files={"train": ("train",), "val": ("test",)},
        meta="meta",
        form=PickledForm(b"fine_labels", b"fine_label_names"),
    ),
    _Archive(
        dataset="cifar10",
        folder="cifar-10-batches-bin",
        tar="cifar-10-binary.tar.gz",
        files={"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "val": ("test_batch.bin",)},
        meta="batches.meta.txt",
        form=BinaryForm(num_label_bytes=1),
    ),
    _Archive(
        dataset="cifar100",
        folder="cifar-100-binary",
        tar="cifar-100-binary.tar.gz",
        files={"train": ("train.bin",), "val": ("test.bin",)},
        meta="fine_label_names.txt",
        form=BinaryForm(num_label_bytes=2),
    ),
)


def recognises(path: Path) -> bool:
    """Whether one of the archives, packed or unpacked, is at `path` or lies in it."""
    return bool(_found(path))


def datasets(path: Path) -> tuple[str, ...]:
    """Which of "cifar10" and "cifar100" are at `path`."""
    return tuple(dict.fromkeys(archive.dataset for archive, _ in _found(path)))


def list_splits(path: Path) -> tuple[str, ...]:
    """Always both."""
    return ("train", "val")


def open_split(path: Path, split: str, progress: ScanProgress | None) -> "CifarRecords":
    """Read one split into memory: 150 MB for training, 30 MB for the 10,000 test images, which are split "val".

    The pickles in it can make arrays and nothing else: no code in them is run. Raises FeedrateError on missing or
    damaged files.
    """
    found = _found(path)
    if len(datasets(path)) > 1:
        raise FeedrateError(f"{path} holds both CIFAR-10 and CIFAR-100: name the one, {found[0][1]} or {found[-1][1]}")
    archive, place = found[0]
    wanted = (archive.meta, *archive.files[split])
    contents = _unpacked(place, wanted) if place.is_dir() else _from_tar(place, archive, wanted)
    pixels, labels = [], []
    name = archive.meta
    try:
        classes = archive.form.class_names(contents[name])
        for name in archive.files[split]:
            planes, file_labels = archive.form.images(contents.pop(name))  # the arrays are views of it
            if len(file_labels) and not 0 <= file_labels.min() <= file_labels.max() < len(classes):
                raise ValueError(f"it has label {file_labels.max()} and there are {len(classes)} classes")
            pixels.append(planes.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1))
            labels.append(file_labels)
    except FeedrateError as error:
        raise FeedrateError(f"{place / name} {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise FeedrateError(
            f"{place / name} is not what CIFAR's archive holds ({type(error).__name__}: {error}): download it again"
        ) from error
    return CifarRecords(place, archive.files[split], classes, np.concatenate(labels), pixels)


class CifarRecords:
    """See `records.Records`. All is in memory, raw, 32×32 px."""

    is_in_memory = True

    def __init__(
        self,
        place: Path,
        files: tuple[str, ...],
        classes: tuple[str, ...],
        labels: NDArray[np.int64],
        pixels: list[NDArray[np.uint8]],
    ) -> None:
        self.classes = classes
        self.labels = labels
        self.widths = np.full(len(labels), _SIDE_PX, dtype=np.int32)
        self.heights = self.widths.copy()
        self.is_raw = np.ones(len(labels), dtype=np.bool_)
        self.channels: ChannelStatistics | None = None
        self.place = place
        self._files = files
        self._starts = np.cumsum([0, *(len(part) for part in pixels)])
        self._pixels = np.concatenate(pixels, dtype=np.uint8).reshape(len(labels), -1)
        self._pixels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [3072], a view."""
        pixels: NDArray[np.uint8] = self._pixels[index]
        return pixels

    def addresses(self, ids: NDArray[np.int64]) -> Addresses:
        """See `loaders.addresses`."""
        num_bytes = self._pixels.shape[1]
        return lying_in(self._pixels.reshape(-1), num_bytes * ids, np.full(len(ids), num_bytes))

    def where(self, index: int) -> str:
        file, number = self._place_in_file(index)
        return f"{self.place / file}, image {number}"

    def name(self, index: int) -> str:
        """File and number in it, the same for both forms of the archive: "data_batch_1/17"."""
        file, number = self._place_in_file(index)
        return f"{file.removesuffix('.bin')}/{number}"

    def close(self) -> None:
        pass  # no file stays open

    def _place_in_file(self, index: int) -> tuple[str, int]:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._files[file], index - int(self._starts[file])


def _found(path: Path) -> list[tuple[_Archive, Path]]:
    """The archives at `path`; of one that is both packed and unpacked, the folder."""
    found = []
    for archive in _ARCHIVES:
        if path.is_file():
            places = [path] if path.name == archive.tar else []
        else:
            places = [path / archive.folder, path / archive.tar]
            if path.name == archive.folder or (path / archive.meta).is_file():
                places.insert(0, path)
        there = [place for place in places if place.exists()]
        found += [(archive, place) for place in there[:1]]
    return found


def _unpacked(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FeedrateError(f"{folder} lacks {', '.join(missing)}: unpack the archive again")
    return {name: (folder / name).read_bytes() for name in names}


def _from_tar(path: Path, archive: _Archive, names: tuple[str, ...]) -> dict[str, bytes]:
    """The wanted files' contents, read in place in one pass."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                file = tar.extractfile(member) if folder == archive.folder and name in names else None
                if file is not None:
                    contents[name] = file.read()
                if len(contents) == len(names):
                    break
    except (OSError, EOFError, tarfile.TarError) as error:  # gzip raises the first two
        raise FeedrateError(f"{path} cannot be read ({error}): download it again") from error
    missing = [name for name in names if name not in contents]
    if missing:
        raise FeedrateError(f"{path} lacks {', '.join(missing)}: download it again")
    return contents
