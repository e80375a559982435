"""ImageNet's development kit: which number stands for which class, and the classes of the validation images."""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from loaders.errors import FeedrateError

DEVKIT_NAME = "ILSVRC2012_devkit_t12.tar.gz"
_META = "data/meta.mat"
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """`names` by wnid, in the order of the sorted wnids, which is that of the labels; `val_wnids`: of image 1, 2, …"""

    names: dict[str, str]
    val_wnids: Sequence[str]


def read_devkit(folder: Path) -> Devkit | None:
    """The kit that lies in `folder`, packed or unpacked; None where there is none. Raises FeedrateError if damaged."""
    for place in (folder / DEVKIT_NAME, folder / DEVKIT_NAME.removesuffix(".tar.gz")):
        if place.exists():
            try:
                return _parse(*(_from_tar(place) if place.is_file() else (_read(place, _META), _read(place, _TRUTH))))
            except Exception as error:  # scipy, tarfile and gzip raise many kinds of errors on damaged files
                raise FeedrateError(f"{place} cannot be read ({error}): download it again") from error
    return None


def _read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _from_tar(path: Path) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = next((name for name in (_META, _TRUTH) if member.name.endswith(f"/{name}")), None)
            file = archive.extractfile(member) if name is not None else None
            if name is not None and file is not None:
                found[name] = file.read()
    if missing := [name for name in (_META, _TRUTH) if name not in found]:
        raise ValueError(f"it lacks {' and '.join(missing)}")
    return found[_META], found[_TRUTH]


def _parse(meta: bytes, truth: bytes) -> Devkit:
    """As `torchvision.datasets.imagenet` does: synsets with children are no classes."""
    from scipy.io import loadmat  # type: ignore[import-untyped]  # here, since only these archives need it

    synsets = np.atleast_1d(loadmat(BytesIO(meta), squeeze_me=True)["synsets"])
    leaves = synsets[[int(number) == 0 for number in synsets["num_children"]]]
    wnid_of = {int(number): str(wnid) for number, wnid in zip(leaves["ILSVRC2012_ID"], leaves["WNID"], strict=True)}
    name_of = {str(wnid): str(words) for wnid, words in zip(leaves["WNID"], leaves["words"], strict=True)}
    numbers = [int(line) for line in truth.split()]
    if unknown := [number for number in numbers if number not in wnid_of]:
        raise ValueError(f"the validation images have class {unknown[0]}, which {_META} does not have")
    return Devkit(dict(sorted(name_of.items())), [wnid_of[number] for number in numbers])
