"""The images of a case, stored in all ways its sides read, and once more in the page cache."""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loaders.errors import FeedrateError
from loaders.records import open_records

from ..images import repeated
from ..process import REPOSITORY, run
from ..side_by_side import Say
from .cases import Case

_CIFAR = REPOSITORY / "data" / "long" / "cifar10-packed"
_CIFAR_FILES = 5
_PER_FILE = 10_000
_SHARD_MB = "32"  # several for every worker
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Stored:
    """`data` as `Job.data`; how many samples there are, and the mean of their bytes by the form that is packed."""

    data: dict[str, str]
    num_samples: int
    bytes_per_sample: dict[str, float]


def store(name: str, case: Case, source: Path, repeat: int, folder: Path, say: Say) -> Stored:
    """Pack and extract what the case needs below `folder`; what an earlier, interrupted command left is used."""
    packed = _CIFAR
    images = folder / f"images-{case.times}"
    if case.source == "photos":
        if not images.exists():
            partial = images.with_suffix(".partial")
            repeated(source, repeat * case.times, partial)
            partial.rename(images)  # all are there
        packed = folder / name
        _convert("folder", images, packed, case, folder, say)
    elif why := _unusable(_CIFAR):
        say(f"{why}; 50,000 random images stand in for CIFAR-10")
        packed = folder / name
        _write_random_cifar(folder / "cifar-archive")
        _convert("cifar10", folder / "cifar-archive", packed, case, folder, say)
    data = {form: str(packed) for form in case.formats}
    if case.folder == "links":
        data["folder"] = str(images / "train")
    elif case.folder == "extracted":
        data["folder"] = str(_extracted(packed, folder / f"{name}-files"))
    if case.restarts:
        data["restarts"] = str(folder / f"{name}-restarts")
        others = [word for word in case.convert if word != "--seek-points"]
        cut = replace(case, formats=("beton",), convert=(*others, "--restart-markers"))
        _convert("folder", images, folder / f"{name}-restarts", cut, folder, say)
    if not case.is_cold:
        for path in {path for where in data.values() for path in Path(where).rglob("*")}:
            if path.is_file():
                path.read_bytes()  # from now on it is in the page cache
    packed_forms = [form for form in ("beton", "restarts") if form in data]
    sizes = {form: _sizes(Path(data[form])) for form in packed_forms}
    return Stored(data, len(sizes["beton"]), {form: sum(each) / len(each) for form, each in sizes.items()})


def _sizes(packed: Path) -> list[int]:
    """Bytes of each sample."""
    records = open_records(packed, "train")
    sizes = [len(records.read(index)) for index in range(len(records))]
    records.close()
    return sizes


def _unusable(packed: Path) -> str:
    """Why its training split cannot be opened, or ""."""
    try:
        open_records(packed, "train").close()
    except FeedrateError as error:
        return str(error)
    return ""


def _convert(form: str, source: Path, packed: Path, case: Case, folder: Path, say: Say) -> None:
    words = [sys.executable, str(REPOSITORY / "tools" / "convert.py"), form, "--source", str(source)]
    words += ["--out", str(packed), "--to", ",".join(case.formats), *case.convert]
    words += ["--shard-mb", _SHARD_MB] if "shards" in case.formats else []
    say(f"packing {packed.name}: {' '.join(case.convert) or 'as it is'}")
    run(words, folder / "convert.log", _TIMEOUT_S)


def _extracted(packed: Path, folder: Path) -> Path:
    """The JPEGs of a packed set as files in class folders; a folder gets its name when all are there."""
    if folder.exists():
        return folder
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    records = open_records(packed, "train")
    for label, name in enumerate(records.classes):
        (partial / name).mkdir(parents=True)
        for index in np.flatnonzero(records.labels == label):
            (partial / name / f"{index:09d}.jpg").write_bytes(records.read(index).tobytes())
    records.close()
    partial.rename(folder)
    return folder


def _write_random_cifar(folder: Path) -> None:
    """The training files of CIFAR-10's binary archive, with random pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in [*range(1, _CIFAR_FILES + 1), "test"]:
        rows = rng.integers(0, 256, (_PER_FILE, 1 + 32 * 32 * 3), np.uint8)
        rows[:, 0] %= 10
        rows.tofile(folder / ("test_batch.bin" if number == "test" else f"data_batch_{number}.bin"))
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n")
