"""CIFAR-10 and CIFAR-100 as distributed for Python: a tar archive or its folder, with pickled arrays in it.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError
from .records import ChannelStatistics, ScanProgress

_SIDE_PX = 32


@dataclass(frozen=True)
class _Archive:
    """What one of the two archives is called and holds."""

    folder: str
    tar: str
    files: dict[str, tuple[str, ...]]  # by split
    meta: str
    labels_key: bytes
    names_key: bytes


_ARCHIVES = (
    _Archive(
        folder="cifar-10-batches-py",
        tar="cifar-10-python.tar.gz",
        files={"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "val": ("test_batch",)},
        meta="batches.meta",
        labels_key=b"labels",
        names_key=b"label_names",
    ),
    _Archive(
        folder="cifar-100-python",
        tar="cifar-100-python.tar.gz",
        files={"train": ("train",), "val": ("test",)},
        meta="meta",
        labels_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
)


def recognises(path: Path) -> bool:
    """Whether one of the archives, packed or unpacked, is at `path` or lies in it."""
    return bool(_found(path))


def list_splits(path: Path) -> tuple[str, ...]:
    """Always both."""
    return ("train", "val")


def open_split(path: Path, split: str, progress: ScanProgress | None) -> "CifarRecords":
    """Read one split into memory: 150 MB for training, 30 MB for the 10,000 test images, which are split "val".

    The pickles in it can make arrays and nothing else: no code in them is run. Raises FeedrateError on missing or
    damaged files.
    """
    found = _found(path)
    if len({archive.folder for archive, _ in found}) > 1:
        raise FeedrateError(f"{path} holds both CIFAR-10 and CIFAR-100: name the one, {found[0][1]} or {found[-1][1]}")
    archive, place = found[0]
    wanted = (archive.meta, *archive.files[split])
    contents = _unpacked(place, wanted) if place.is_dir() else _from_tar(place, archive, wanted)
    classes = tuple(name.decode() for name in _entry(place, archive.meta, contents, archive.names_key))
    pixels, labels = [], []
    for name in archive.files[split]:
        planes = np.asarray(_entry(place, name, contents, b"data"))
        file_labels = np.asarray(_entry(place, name, contents, archive.labels_key), dtype=np.int64)
        if planes.dtype != np.uint8 or planes.shape != (len(file_labels), 3 * _SIDE_PX**2):
            raise _damaged(place / name, f"its images are {planes.dtype} {planes.shape}")
        if len(file_labels) and not 0 <= file_labels.min() <= file_labels.max() < len(classes):
            raise _damaged(place / name, f"it has label {file_labels.max()} and there are {len(classes)} classes")
        pixels.append(planes.reshape(-1, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1))
        labels.append(file_labels)
        contents.pop(name)  # its pickle's arrays are views of it
    return CifarRecords(place, archive.files[split], classes, np.concatenate(labels), pixels)


class CifarRecords:
    """See `records.Records`. All is in memory, raw, 32×32 px."""

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
        self._place = place
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

    def where(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._place / self._files[file]}, image {index - int(self._starts[file])}"

    def close(self) -> None:
        pass  # no file stays open


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


def _entry(place: Path, name: str, contents: dict[str, bytes], key: bytes) -> Any:
    try:
        content = _ArrayUnpickler(io.BytesIO(contents[name]), encoding="bytes").load()
        return content[key]
    except FeedrateError as error:
        raise FeedrateError(f"{place / name} {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(place / name, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, reason: str) -> FeedrateError:
    return FeedrateError(f"{path} is not what CIFAR's archive holds ({reason}): download it again")


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, by which NumPy's pickles write bytes; others of its encodings could do more."""
    if encoding != "latin1":
        raise FeedrateError(
            f"asks for the encoding {encoding!r}, which arrays do not need: it was not made by CIFAR's authors"
        )
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Makes dictionaries, lists, numbers, bytes and NumPy arrays, and refuses whatever else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., Any] | type] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
            allowed[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        try:
            return allowed[module, name]
        except KeyError:
            raise FeedrateError(
                f"is a pickle that asks for {module}.{name}, which no CIFAR file needs: it is refused, since it could"
                " run any code"
            ) from None


_reconstruct: Any = np.empty(0).__reduce__()[0]  # NumPy's own function, wherever its version keeps it
