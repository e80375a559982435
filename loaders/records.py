"""Where samples are stored: random access to their bytes, whatever the format."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError
from .home_folder import given_path
from .named import is_named, load_named

SPLITS = ("train", "val")


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of the red, green and blue values, 0-255, over the pixels of the named split."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str


class Records(Protocol):
    """One split of a data set. Implementations can be pickled (an open file is opened again) and read by many threads.

    classes   names, one a label
    labels    int64 [N]
    widths    int32 [N], pixels;  heights  int32 [N], pixels
    is_raw    bool [N]: True where the bytes are uint8 RGB pixels, row by row; False where they are an encoded image
    channels  statistics where the format carries them, else None

    Where it is known where decoding of a sample can begin, `seek_points` may say so (`loaders.seek_points`).
    Where they were packed from something, `in_source` may say what each is there (`loaders.sample_table.InSource`).
    Where samples' bytes lie in memory or in mapped files, `addresses` may say where (`loaders.addresses`).
    Where all samples' bytes are in memory from the start, `is_in_memory = True` may say that reading takes no time.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    is_raw: NDArray[np.bool_]
    channels: ChannelStatistics | None

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """The stored bytes of sample `index`, uint8 [size], read-only and without a copy where the format allows.

        Raises LoaderError, naming the sample and its place, when they cannot be had.
        """
        ...

    def where(self, index: int) -> str:
        """Where sample `index` is stored, for people: a path, or a file and a position in it."""
        ...

    def close(self) -> None:
        """Let go of open files. Idempotent."""
        ...


ScanProgress = Callable[[int, int], None]  # (samples done, samples there are; 0 while they are being listed)


def records_fingerprint(records: Records) -> str:
    """SHA-256 of classes, labels and sizes: what the stream and its targets depend on, not how pixels are encoded."""
    digest = sha256("\0".join(records.classes).encode("utf-8", "surrogateescape"))
    for column in (records.labels, records.widths, records.heights):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def lie_in_memory(records: Records) -> bool:
    """Whether the records say that all their samples' bytes are in memory, so that nothing is read from anywhere."""
    return bool(getattr(records, "is_in_memory", False))


def list_splits(path: str | Path) -> tuple[str, ...]:
    """The splits stored at `path`, a subset of ("train", "val")."""
    if own := _own(path):
        return tuple(getattr(own[0], "splits", SPLITS))
    path = _existing(path)
    return _format_of(path).list_splits(path)


def open_records(
    path: str | Path, split: str, progress: ScanProgress | None = None, prefers: str | None = None
) -> Records:
    """Open one split of whatever is stored at `path`.

    `path` is a packed folder (see docs/formats.md), a .beton file, a folder with one of CIFAR's archives, or
    a folder of images: `train/<class>/…` and `val/<class>/…` (also `training`; `valid`, `validation`, `test`,
    `testing`; in any capitals), or just `<class>/…`.
    `module:name@path` is a user's own: what `name` returns for (path, split). `progress` hears how far listing a folder
    of images is, and then the one-time scan of their sizes. `prefers` names the format ("beton", "raw", "shards") to
    take of a packed folder that has it.
    Raises FeedrateError with one sentence on anything else.
    """
    if own := _own(path):
        records: Records = own[0](own[1], split)
        return records
    from . import packed_folder

    path = _existing(path)
    opener = _format_of(path)
    if opener is packed_folder:  # which knows of other splits, and of formats, by a manifest that it reads once
        return packed_folder.open_split(path, split, progress, prefers)
    splits = opener.list_splits(path)
    if split not in splits:
        raise FeedrateError(f"{path} has no '{split}' split: it holds {' and '.join(splits)}")
    return opener.open_split(path, split, progress)


def open_unlabelled(path: str | Path, classes: tuple[str, ...], progress: ScanProgress | None = None) -> Records | None:
    """The images of a folder that holds nothing but images, for a model that knows `classes`; None where `path` is
    something else. Their labels say nothing.
    """
    from . import cifar_records, folder_records, packed_folder

    folder = given_path(str(path))
    if is_own(path) or not folder_records.is_flat(folder):
        return None
    if any(module.recognises(folder) for module in (packed_folder, cifar_records)):
        return None
    return folder_records.open_unlabelled(folder, classes, progress)


def class_folders(path: str | Path) -> tuple[str, ...] | None:
    """The names of the class folders at `path`, without looking at their images; None where it is of another form."""
    from . import folder_records

    if is_own(path):
        return None
    try:
        folder = _existing(path)
        return folder_records.class_folders(folder) if _format_of(folder) is folder_records else None
    except (FeedrateError, OSError):  # said by who opens it, if anybody does
        return None


class _Format(Protocol):
    """What `packed_folder`, `cifar_records` and `folder_records` offer."""

    def list_splits(self, path: Path) -> tuple[str, ...]: ...
    def open_split(self, path: Path, split: str, progress: ScanProgress | None) -> Records: ...


def is_own(path: str | Path) -> bool:
    """Whether `path` names a user's own records, `module:name@path`; nothing is loaded to find out."""
    return is_named(str(path).partition("@")[0])


def _own(path: str | Path) -> tuple[Callable[[str, str], Records], str] | None:
    """What opens a user's own records, and the path to give it; None for a path of the usual kind."""
    name, _, rest = str(path).partition("@")
    return (load_named(name), rest) if is_own(path) else None


def _existing(path: str | Path) -> Path:
    path = given_path(str(path))
    if not path.exists():
        raise FeedrateError(f"{path} does not exist: give a packed folder, a .beton file or a folder of images")
    return path


def _format_of(path: Path) -> _Format:
    """The module that reads what lies at `path`; imported here, on demand, since each brings its own needs."""
    from . import cifar_records, folder_records, packed_folder

    for module in (packed_folder, cifar_records, folder_records):
        if module.recognises(path):
            return module
    folder_records.refuse_flat(path)
    if tars := sorted(path.glob("*.tar")):
        dataset = "imagenet" if tars[0].name.startswith("ILSVRC") else "folder"
        raise FeedrateError(
            f"{path} holds .tar files, such as {tars[0].name}, which must be packed first: python"
            f" tools/convert.py {dataset} --source {shlex.quote(str(path))}"
        )
    raise FeedrateError(
        f"{path} holds nothing this reads: expected manifest.json, a .beton file, one of CIFAR's archives,"
        " or a folder with one folder of images a class"
    )
