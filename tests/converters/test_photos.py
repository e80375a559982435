"""The generated set: the same photos from the same seed, as large as ImageNet's, complete after an interruption."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from converters.generated.photos import RECIPE_NAME, write_photos
from converters.generated.scenes import photo
from converters.generated.subjects import SUBJECTS
from loaders.errors import FeedrateError
from loaders.records import open_records

COUNTS = {"train": 12, "val": 10}


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.jpg")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "set"
    assert write_photos(root, COUNTS, num_workers=1) == (22, 0)
    return root


def test_a_photo_depends_on_seed_split_number_and_subject_alone():
    first = photo(0, "train", 5, "wheel")
    photo(0, "train", 6, "leaf")
    assert photo(0, "train", 5, "wheel") == first
    others = [(1, "train", 5, "wheel"), (0, "val", 5, "wheel"), (0, "train", 6, "wheel"), (0, "train", 5, "leaf")]
    assert all(photo(*other) != first for other in others)


def test_sizes_and_bytes_are_those_of_imagenet():
    """468×401 pixels and 110 kB a photo there."""
    photos = [photo(3, "train", number, list(SUBJECTS)[number % 10]) for number in range(120)]
    sizes = np.array([Image.open(BytesIO(data)).size for data in photos])
    assert len({tuple(size) for size in sizes.tolist()}) > 5
    assert 420 < sizes[:, 0].mean() < 510 and 360 < sizes[:, 1].mean() < 450
    assert 85_000 < np.mean([len(data) for data in photos]) < 125_000


def test_classes_are_equally_large_and_named(made):
    records = open_records(made, "val")
    assert records.classes == tuple(sorted(SUBJECTS))
    assert np.bincount(records.labels).tolist() == [1] * 10


def test_several_processes_write_the_same_files(made, tmp_path):
    write_photos(tmp_path / "set", {"train": 36, "val": 10}, num_workers=2)
    written = contents(tmp_path / "set")
    assert all(written[name] == data for name, data in contents(made).items())


def test_an_interrupted_set_is_completed_and_what_is_whole_is_kept(made, tmp_path):
    root = tmp_path / "set"
    write_photos(root, COUNTS, num_workers=1)
    whole = contents(root)
    names = sorted(whole)
    (root / names[0]).unlink()
    (root / names[1]).write_bytes(whole[names[1]][:-5])
    (root / names[2]).write_bytes(b"")
    assert write_photos(root, COUNTS, num_workers=1) == (3, 19)
    assert contents(root) == whole


@pytest.mark.parametrize(
    ("counts", "more", "word"),
    [
        (COUNTS, {"seed": 1}, "seed"),
        ({"train": 13, "val": 10}, {}, "num_photos"),
        (COUNTS, {"num_classes": 5}, "classes"),
    ],
)
def test_another_recipe_is_refused(made, counts, more, word):
    with pytest.raises(FeedrateError, match=word):
        write_photos(made, counts, num_workers=1, **more)


def test_a_run_killed_while_it_wrote_the_recipe_is_gone_on_with(tmp_path):
    (tmp_path / f"{RECIPE_NAME}.partial").write_text('{"version"')
    assert write_photos(tmp_path, {"train": 2, "val": 2}, num_classes=2, num_workers=1) == (4, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECIPE_NAME, "train", "val"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{RECIPE_NAME}.partial").touch()
    (tmp_path / "mine" / "mine.txt").touch()
    with pytest.raises(FeedrateError, match=RECIPE_NAME):
        write_photos(tmp_path / "mine", COUNTS)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FeedrateError, match=RECIPE_NAME):
        write_photos(tmp_path, COUNTS)


@pytest.mark.parametrize(
    ("counts", "more"),
    [({"train": 9}, {}), (COUNTS, {"num_classes": 1}), (COUNTS, {"num_classes": 11}), (COUNTS, {"seed": -1})],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, counts, more):
    with pytest.raises(FeedrateError, match="give"):
        write_photos(tmp_path / "set", counts, **more)
    assert not (tmp_path / "set").exists()
