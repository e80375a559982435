"""What is packed in a comparison: a folder of photos, each many times by hard links, so that a run takes a while."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from converters.generated.photos import write_photos
from loaders.errors import FeedrateError

from .process import REPOSITORY

_SUFFIXES = (".jpg", ".jpeg")
_SAMPLE = "imagenet-sample-500"
# real photos are not part of the project; this is where tests/long looks for them too
_REAL_DATA = Path(os.environ.get("FEEDRATE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
_UNPACKED = REPOSITORY / "data" / "long" / _SAMPLE
_NUM_GENERATED = {"train": 500}


def find_photos(folder: Path, say: Callable[[str], None]) -> Path:
    """Real photos where there are some, unpacked once; else photos generated below `folder`."""
    archive = _REAL_DATA / f"{_SAMPLE}.tar"
    if not (_UNPACKED / ".complete").exists():
        if not archive.exists():
            say(f"{archive} is missing (FEEDRATE_TEST_DATA names its folder): using generated photos instead")
            write_photos(folder / "photos", _NUM_GENERATED, seed=0)
            return folder / "photos"
        say(f"unpacking {archive} to {_UNPACKED}")
        _UNPACKED.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(_UNPACKED, filter="data")
        (_UNPACKED / ".complete").touch()
    return _UNPACKED


def repeated(source: Path, repeat: int, target: Path) -> int:
    """Fill `target/train/<class>/` with every JPEG of `source` `repeat` times, and read each once; how many there are.

    `source` holds `train/<class>/…` or `<class>/…`. Hard links, or symbolic ones where the disk is another. Raises
    FeedrateError where there are no JPEGs.
    """
    if not source.is_dir():
        raise FeedrateError(f"{source} is no folder: give one with train/<class>/… or <class>/… of JPEGs")
    train = source / "train" if (source / "train").is_dir() else source
    files = sorted(path for path in train.glob("*/*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise FeedrateError(f"{train} holds no JPEGs in class folders: give --source a folder of <class>/<name>.jpg")
    shutil.rmtree(target, ignore_errors=True)
    for path in files:
        path.read_bytes()  # from now on it is in the page cache
        folder = target / "train" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(repeat):
            _link(path, folder / f"{path.stem}-{number:04d}{path.suffix}")
    return len(files) * repeat


def _link(path: Path, link: Path) -> None:
    try:
        os.link(path.resolve(), link)
    except OSError:
        link.symlink_to(path.resolve())
