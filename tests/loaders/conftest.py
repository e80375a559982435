"""Every kind of records and every loader, for the tests that hold for all of them."""

import shutil
from pathlib import Path

import pytest
from packed_by_hand import FORMATS, samples_of, write_packed
from stored_samples import write_cifar10

from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records

RECORD_KINDS = ["folder", "cifar", *FORMATS]


@pytest.fixture(scope="session", params=RECORD_KINDS)
def records(request: pytest.FixtureRequest, image_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """37 training samples."""
    path = image_folder
    if request.param == "cifar":
        path = write_cifar10(tmp_path_factory.mktemp("cifar"))
    elif request.param in FORMATS:
        splits = {"train": samples_of(image_folder, "train")}
        path = write_packed(tmp_path_factory.mktemp("packed"), splits, (request.param,))
    opened = open_records(path, "train")
    assert len(opened) == 37
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def folder(image_folder: Path):
    """The 37 training samples of the image folder."""
    return open_records(image_folder, "train")


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
