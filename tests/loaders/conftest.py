"""Every kind of records and every loader, for the tests that hold for all of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from packed_by_hand import FORMATS, samples_of, write_packed
from stored_samples import LoaderCase, write_cifar10

from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records


@pytest.fixture(scope="session")
def records_of(image_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """records_of(kind): 37 training samples, opened once. All kinds but "cifar" hold the same ones."""
    opened = {}

    def of(kind: str):
        if kind not in opened:
            path = image_folder
            if kind == "cifar":
                path = write_cifar10(tmp_path_factory.mktemp("cifar"))
            elif kind in FORMATS:
                splits = {"train": samples_of(image_folder, "train")}
                path = write_packed(tmp_path_factory.mktemp("packed"), splits, (kind,))
            opened[kind] = open_records(path, "train")
            assert len(opened[kind]) == 37
        return opened[kind]

    yield of
    for records in opened.values():
        records.close()


@pytest.fixture
def records(records_of, kind: str):
    """37 training samples of this kind."""
    return records_of(kind)


@pytest.fixture
def folder(records_of):
    """The 37 training samples of the image folder."""
    return records_of("folder")


@pytest.fixture
def name(case: LoaderCase) -> str:
    return case.name


@pytest.fixture
def resize(case: LoaderCase) -> str:
    return case.resize


@pytest.fixture
def samples(records_of, case: LoaderCase):
    """37 training samples that the loader can read: those of the image folder, packed where it reads no folders."""
    return records_of(case.kinds[0])


@pytest.fixture
def damaged(image_folder: Path, tmp_path: Path, case: LoaderCase):
    """damaged({id: change}): the samples of the image folder with some JPEGs changed, `change(bytes) -> bytes`."""
    opened = []

    def damage(changes):
        samples = samples_of(image_folder, "train")
        path = tmp_path / f"damaged-{len(opened)}"
        kind = case.kinds[0]
        if kind == "folder":
            shutil.copytree(image_folder / "train", path / "train")
            opened.append(open_records(path, "train"))  # sizes are scanned while all are sound
            for index, change in changes.items():
                file = Path(opened[-1].where(index))
                file.write_bytes(change(file.read_bytes()))
            return opened[-1]
        for index, change in changes.items():
            assert kind != "beton" or index % 3, "every third sample of .beton is stored raw"
            samples[index] = replace(samples[index], jpeg=change(samples[index].jpeg))
        opened.append(open_records(write_packed(path, {"train": samples}, (kind,)), "train"))
        return opened[-1]

    yield damage
    for records in opened:
        records.close()


@pytest.fixture(scope="session")
def packed_once(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image folder packed in every format; not to be changed."""
    splits = {split: samples_of(image_folder, split) for split in ("train", "val")}
    return write_packed(tmp_path_factory.mktemp("packed"), splits)


@pytest.fixture
def packed(packed_once: Path, tmp_path: Path) -> Path:
    """The same, a test's own."""
    return Path(shutil.copytree(packed_once, tmp_path / "packed"))


@pytest.fixture
def open_one():
    """open_one(records, loader, resize, order=…, view=…, seed=…, **options): a loader, closed after the test."""
    opened = []

    def open_it(records, name, resize=None, order=None, view=None, seed=0, **options):
        plan = Plan(
            records.widths,
            records.heights,
            order or Shuffled(8),
            view or View(RandomResizedCrop(), 32, 0.5),
            seed,
        )
        options = {"num_workers": 2, **options}
        opened.append(open_loader(name, records, plan, LoaderOptions(resize=resize, **options)))
        return opened[-1]

    yield open_it
    for loader in opened:
        loader.close()
