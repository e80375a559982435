"""Class folders as a source: listed as torchvision lists them, nothing read, and whatever cannot be used is told."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from imagenet_forms import LENIENT, contents, jpeg, open_as, refused_source
from torchvision.datasets import ImageFolder

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65_534


def add(path: Path, data: bytes = b"not even an image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    for number, name in enumerate(("ant/0.jpg", "ant/1.jpg", "bee/0.jpg", "bee/1.png", "cat/0.jpg")):
        add(tmp_path / "data" / "train" / name, jpeg(number))
        add(tmp_path / "data" / "val" / name, jpeg(number + 10))
    return tmp_path / "data"


def test_order_and_labels_are_those_of_torchvisions_image_folder(root):
    train = root / "train"
    for name in ("bee/deep/er/x.png", "bee/deep b/y.JPG", "bee/deep.d/z.jpeg", "Äpfel und Birnen/0.webp", "ant/Z.BMP"):
        add(train / name)
    add(train / "ant" / "a folder.JPEG" / "inside.jpg")
    (train / "ant" / "link.png").symlink_to(add(root.parent / "elsewhere" / "linked.png"))
    (train / "dog").symlink_to(root.parent / "elsewhere")
    samples, reference = open_as(root, "folder")["train"], ImageFolder(train)
    assert [(samples.stored(i).path, label) for i, label in enumerate(samples.labels.tolist())] == reference.samples
    assert list(samples.classes) == reference.classes
    for index, (path, _) in enumerate(reference.samples):
        assert samples.num_bytes[index] == Path(path).stat().st_size
        assert samples.stored(index).name == path.removeprefix(f"{train}/")


def test_no_image_is_opened(root, monkeypatch):
    for path in root.rglob("*.*"):
        path.write_bytes(b"")  # an empty file stays a sample: the worker will find that it is broken
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("opened"))
    monkeypatch.setattr("loaders.image_sizes.image_size", lambda path: pytest.fail("measured"))
    assert [len(samples) for samples in open_as(root, "folder").values()] == [5, 5]


def test_names_that_are_no_utf8_survive(root):
    data = jpeg(3)
    with open(os.fsencode(root / "train" / "ant") + b"/\xff\xfe 2.jpg", "wb") as file:
        file.write(data)
    samples = open_as(root, "folder")["train"]
    assert ("ant/\udcff\udcfe 2.jpg", 0, data) in contents(samples)
    assert len(samples.fingerprint()) == 64


def test_other_files_are_counted_and_stray_images_noted(root):
    for name in ("ant/notes.txt", "ant/._0.jpg", "bee/deep/.DS_Store", "list.csv", ".hidden"):
        add(root / "train" / name)
    add(root / "train" / "stray.jpg")
    add(root / "train" / "ant" / ".thumbnails" / "0.jpg")
    samples = open_as(root, "folder")["train"]
    assert samples.num_ignored == 5 and samples.notes["ignored_suffixes"] == {"hidden": 3, ".csv": 1, ".txt": 1}
    assert samples.notes["num_images_outside_class_folders"] == 1
    assert len(samples) == 5 and not samples.bad
    assert open_as(root, "folder")["val"].num_ignored == 0


def test_links_are_followed_and_loops_are_not(root):
    (root / "train" / "ant" / "loop").symlink_to(root / "train" / "ant")
    assert len(open_as(root, "folder")["train"]) == 5


def test_everything_that_cannot_be_used_is_a_bad_sample(root):
    ant = root / "train" / "ant"
    (ant / "gone.jpg").symlink_to("nowhere")
    (ant / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(ant / "pipe.png")
    (ant / "gone.txt").symlink_to("nowhere")  # would be no image anyway
    (root / "train" / "dog").symlink_to("nowhere")  # would have been a class
    samples = open_as(root, "folder", rules=LENIENT)["train"]
    reasons = {bad.name: bad.reason for bad in samples.bad}
    assert reasons == {
        "ant/gone.jpg": "it is a link to nothing",
        "ant/pipe.png": "it is not a regular file",
        "ant/self.jpg": "Too many levels of symbolic links",
        "dog": "it is a link to nothing",
    }
    assert list(reasons) == sorted(reasons)
    assert len(samples) == 5 and samples.num_ignored == 1
    assert str(ant / "gone.jpg") in refused_source(root, "folder")


def test_what_may_not_be_read_is_a_bad_sample(root):
    """As a user without rights: the super-user may read everything. What pytest makes is for its owner alone."""
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        check_what_may_not_be_read(Path(shutil.copytree(root, Path(open_to_all) / "data")))


def check_what_may_not_be_read(root):
    ant = root / "train" / "ant"
    closed, names_only = add(ant / "closed" / "x.jpg").parent, add(ant / "names only" / "y.jpg").parent
    closed.chmod(0)
    names_only.chmod(0o444)
    script = """
import os, sys
from pathlib import Path
from converters.progress import silent_phase
from converters.sources.opening import SourceOptions, open_source
from converters.split_pass import Rules
if os.getuid() == 0:
    os.setuid(int(sys.argv[2]))
samples = open_source("folder", Path(sys.argv[1]), SourceOptions(rules=Rules(True, 2)), silent_phase)["train"]
print(len(samples), [(bad.name, bad.reason) for bad in samples.bad])
open_source("folder", Path(sys.argv[1]), SourceOptions(), silent_phase)
"""
    command = [sys.executable, "-c", script, str(root), str(NOBODY)]
    try:
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    finally:
        closed.chmod(0o755)
        names_only.chmod(0o755)
    expected = [("ant/closed", "Permission denied"), ("ant/names only/y.jpg", "Permission denied")]
    assert ended.stdout == f"5 {expected}\n", ended.stderr
    assert f"FeedrateError: {ant / 'closed'}, and 1 more" in ended.stderr


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test", "testing", "Test"])
def test_the_validation_split_goes_by_many_names(root, folder):
    (root / "val").rename(root / folder)
    assert list(open_as(root, "folder")) == ["train", "val"]


def test_folders_beside_the_splits_are_left_out_and_noted(root):
    assert not open_as(root, "folder")["train"].notes
    shutil.copytree(root / "val", root / "test")
    add(root / "papers" / "a.jpg")
    add(root / ".cache" / "a.jpg")
    for samples in open_as(root, "folder").values():
        assert len(samples) == 5 and samples.notes["left_out"] == ["papers/", "test/"]
    assert "left_out" not in open_as(root / "train", "folder")["train"].notes


def test_splits_with_capitals_are_no_classes(root):
    (root / "train").rename(root / "Training")
    (root / "val").rename(root / "Test")
    splits = open_as(root, "folder")
    assert list(splits) == ["train", "val"]
    assert all(samples.classes == ("ant", "bee", "cat") for samples in splits.values())


def test_images_of_a_split_with_capitals_are_not_left_out_either(root):
    (root / "Training").mkdir()
    (root / "train" / "ant" / "0.jpg").rename(root / "Training" / "0.jpg")
    shutil.rmtree(root / "train")
    assert f"{root / 'Training'} holds images and no class folders" in refused_source(root, "folder")


def test_images_without_any_folder_are_refused_as_that(root):
    told = f"{root / 'train' / 'ant'} holds images and no class folders, so nothing tells what is on them"
    assert told in refused_source(root / "train" / "ant", "folder")


def test_folders_of_classes_alone_are_a_training_split(root):
    assert list(open_as(root / "train", "folder")) == ["train"]


def test_a_label_means_the_same_class_in_both_splits(root):
    shutil.rmtree(root / "val" / "ant")
    samples = open_as(root, "folder")["val"]
    assert samples.classes == ("ant", "bee", "cat") and samples.labels.tolist() == [1, 1, 2]


def test_a_class_that_training_lacks_is_refused(root):
    add(root / "val" / "cow" / "0.jpg")
    assert str(root / "val" / "cow") in refused_source(root, "folder")


def test_a_class_without_images_is_refused_unless_its_images_are_bad(root):
    (root / "train" / "cow").mkdir()
    assert str(root / "train" / "cow") in refused_source(root, "folder")
    (root / "train" / "cow" / "0.jpg").symlink_to("nowhere")
    samples = open_as(root, "folder", rules=LENIENT)["train"]
    assert samples.classes[3] == "cow" and np.bincount(samples.labels, minlength=4)[3] == 0


def test_images_without_class_folders_are_refused_instead_of_left_out(root):
    for split in ("train", "val"):
        copy = Path(shutil.copytree(root, root.parent / f"no classes in {split}"))
        (copy / split / "ant" / "0.jpg").rename(copy / "0.jpg")
        shutil.rmtree(copy / split)
        (copy / split).mkdir()
        (copy / "0.jpg").rename(copy / split / "0.jpg")
        assert f"{copy / split} holds images and no class folders" in refused_source(copy, "folder")


def test_hidden_images_in_a_folder_like_a_splits_are_none(root):
    """macOS leaves them on drives of other systems, beside what is no image too."""
    shutil.rmtree(root / "val")
    add(root / "val" / "._a.jpg")
    splits = open_as(root, "folder")
    assert list(splits) == ["train"] and splits["train"].notes["left_out"] == ["val/"]


def test_a_class_called_test_is_not_taken_for_a_split(root):
    add(root / "train" / "test" / "0.jpg")
    assert open_as(root / "train", "folder")["train"].classes == ("ant", "bee", "cat", "test")
