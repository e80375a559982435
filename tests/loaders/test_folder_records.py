"""Image folders: numbered as torchvision numbers them, sizes scanned once, refusals in one sentence."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import smooth_picture, write_image_folder
from PIL import Image
from stored_samples import refused
from torchvision.datasets import ImageFolder

from loaders import image_sizes
from loaders.records import list_splits, open_records

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEEDRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    return write_image_folder(tmp_path / "data", {"train": {"ant": 4, "bee": 3}, "val": {"ant": 2, "bee": 2}})


@pytest.fixture
def scanned(monkeypatch) -> list[str]:
    """Names of files whose header is read from now on."""
    names = []
    original = image_sizes.image_size
    monkeypatch.setattr(image_sizes, "image_size", lambda path: names.append(os.fsdecode(path)) or original(path))
    return names


def add(path: Path, width: int = 20, height: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_picture(width, height, 0)).save(path)
    return path


def paths(records) -> list[str]:
    return [records.where(index) for index in range(len(records))]


def test_samples_labels_and_order_are_those_of_torchvisions_image_folder(root):
    add(root / "train" / "bee" / "deep" / "er" / "x.png")
    add(root / "train" / "bee" / "deep b" / "y.JPG")
    add(root / "train" / "Äpfel und Birnen" / "0.webp")
    add(root / "train" / "ant" / "Z.BMP")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    elsewhere = add(root.parent / "elsewhere" / "linked.png")
    (root / "train" / "ant" / "link.png").symlink_to(elsewhere)
    (root / "train" / "cat").symlink_to(elsewhere.parent)
    records, reference = open_records(root, "train"), ImageFolder(root / "train")
    assert list(zip(paths(records), records.labels.tolist(), strict=True)) == reference.samples
    assert list(records.classes) == reference.classes
    for index, (path, _) in enumerate(reference.samples):
        with Image.open(path) as image:
            assert (records.widths[index], records.heights[index]) == image.size
        assert records.read(index).tobytes() == Path(path).read_bytes()
    assert (records.labels.dtype, records.widths.dtype, records.heights.dtype) == (np.int64, np.int32, np.int32)
    assert not records.is_raw.any() and records.channels is None


def test_hidden_names_are_skipped(root):
    before = paths(open_records(root, "train"))
    add(root / "train" / "ant" / "._000.jpg")
    add(root / "train" / "ant" / ".thumbnails" / "0.jpg")
    add(root / "train" / ".ipynb_checkpoints" / "0.jpg")
    assert paths(open_records(root, "train")) == before


def test_a_link_to_a_folder_above_ends(root):
    (root / "train" / "ant" / "loop").symlink_to(root / "train" / "ant")
    assert len(open_records(root, "train")) == 7


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test", "testing", "Val", "Test", "VALIDATION"])
def test_the_validation_split_goes_by_many_names(root, folder):
    (root / "val").rename(root / folder)
    assert list_splits(root) == ("train", "val")
    assert len(open_records(root, "val")) == 4


@pytest.mark.parametrize("folder", ["training", "Train", "Training", "TRAIN"])
def test_the_training_split_goes_by_two_names_in_any_capitals(root, folder):
    (root / "train").rename(root / folder)
    (root / "val").rename(root / "Test")
    assert list_splits(root) == ("train", "val")
    records = open_records(root, "train")
    assert records.classes == ("ant", "bee") and len(records) == 7
    assert open_records(root, "val").classes == ("ant", "bee")


def test_the_plainest_name_is_preferred(root):
    for folder in ("Train", "training"):
        add(root / folder / "cow" / "0.jpg")
    assert open_records(root, "train").classes == ("ant", "bee")


def test_val_is_preferred_to_test(root):
    add(root / "test" / "ant" / "0.jpg")
    assert len(open_records(root, "val")) == 4


def test_folders_of_classes_alone_are_a_training_split(root):
    assert list_splits(root / "train") == ("train",)
    assert len(open_records(root / "train", "train")) == 7
    assert "has no 'val' split" in refused(root / "train", "val")


def test_a_class_called_train_is_not_taken_for_a_split(root):
    for name in ("car", "train"):
        add(root.parent / "vehicles" / name / "0.jpg")
    records = open_records(root.parent / "vehicles", "train")
    assert records.classes == ("car", "train") and len(records) == 2


def test_a_label_means_the_same_class_in_both_splits(root):
    shutil.rmtree(root / "val" / "ant")
    records = open_records(root, "val")
    assert records.classes == ("ant", "bee") and records.labels.tolist() == [1, 1]


def test_a_class_that_training_lacks_is_refused(root):
    add(root / "val" / "cow" / "0.jpg")
    assert str(root / "val" / "cow") in refused(root, "val")


def test_a_class_without_images_is_refused(root):
    cow = root / "train" / "cow"
    cow.mkdir()
    (cow / ".hidden").touch()
    told = refused(root)
    assert f"{cow} holds no images, but every folder there stands for a class: add images, or remove it" in told


def test_a_class_without_images_tells_what_it_has_instead(root):
    cow = root / "train" / "cow"
    (cow / "deep").mkdir(parents=True)
    (cow / "0.GIF").touch()
    assert f"{cow} holds 1 file, none of a kind that is read (1 .gif), but every folder" in refused(root)
    for name in ("deep/1.gif", "notes", "a.txt", "b.xml"):
        (cow / name).touch()
    assert "holds 5 files, none of a kind that is read (2 .gif, 1 " in refused(root)
    (cow / ".thumbs").mkdir()
    (cow / ".thumbs" / "2.jpg").touch()  # which nobody reads there
    assert "holds 5 files, none of a kind that is read (2 .gif, 1 " in refused(root)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("train-000000.tar", "folder"),
        ("ILSVRC2012_img_train.tar", "imagenet"),
    ],
)
def test_of_tars_it_is_said_how_they_are_packed(tmp_path, name, command):
    folder = tmp_path / "my set"
    folder.mkdir()
    (folder / name).write_bytes(b"")
    told = refused(folder)
    assert name in told and told.endswith(f"python tools/convert.py {command} --source '{folder}'")


def test_empty_and_misplaced_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds nothing this reads" in refused(tmp_path / "empty")
    add(tmp_path / "flat" / ".0.jpg")
    assert "holds nothing this reads" in refused(tmp_path / "flat")
    add(tmp_path / "flat" / "0.jpg")
    flat = tmp_path / "flat"
    told = f"{flat} holds images and no class folders, so nothing tells what is on them: sort them into {flat}/<class>/"
    assert told in refused(flat)
    assert "does not exist" in refused(tmp_path / "nowhere")
    for name in ("train", "Training"):
        add(tmp_path / name / name / "0.jpg")
        assert "train/<class>/<image>" in refused(tmp_path / name)


def test_of_many_unreadable_images_the_first_are_named_and_how_to_do_without_them(root):
    for number in range(8):
        (root / "train" / "ant" / f"1{number}.jpg").write_bytes(b"not an image")
    message = refused(root)
    assert all(f"ant/1{number}.jpg (" in message for number in range(5)) and "ant/15.jpg" not in message
    assert " and 3 more cannot be read as images" in message and "convert.py folder --on-bad skip" in message


def test_unreadable_headers_are_refused_by_name(root, scanned):
    good = (root / "train" / "bee" / "000.jpg").read_bytes()
    (root / "train" / "ant" / "002.jpg").write_bytes(b"not an image")
    (root / "train" / "bee" / "000.jpg").write_bytes(b"")
    message = refused(root)
    assert str(root / "train" / "ant" / "002.jpg") in message and str(root / "train" / "bee" / "000.jpg") in message
    (root / "train" / "bee" / "000.jpg").write_bytes(good)
    scanned.clear()
    assert "bee" not in refused(root)
    assert len(scanned) == 2  # those that were read before are remembered all the same


@pytest.mark.parametrize("size", [(70_000, 2), (2, 65_536)])
def test_an_image_with_a_side_beyond_what_a_plan_can_cut_is_refused_by_name(root, size):
    Image.new("L", (65_535, 1)).save(root / "train" / "ant" / "wide.png")
    assert open_records(root, "train").widths.max() == 65_535
    Image.new("L", size).save(root / "train" / "ant" / "wider.png")
    width, height = size
    for _ in range(2):  # the second time from what was remembered of the others
        message = refused(root)
        assert f"ant/wider.png (it is {width}×{height} px, with a side above 65,535)" in message
        assert "ant/wide.png" not in message


def test_a_broken_link_is_refused(root):
    (root / "train" / "ant" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    assert "gone.jpg" in refused(root)


def test_a_link_to_itself_among_splits_or_classes_is_refused(root):
    for folder in (root / "train", root):
        (folder / "odd").symlink_to(folder / "odd")
        sentence = f"{folder / 'odd'} cannot be read (Too many levels of symbolic links): mend or remove it"
        assert refused(root) == sentence
        (folder / "odd").unlink()
    assert len(open_records(root, "train")) == 7


def test_a_pipe_is_refused_instead_of_waited_for(root):
    os.mkfifo(root / "train" / "ant" / "zz.jpg")
    assert "zz.jpg cannot be read (it is not a regular file)" in refused(root)


def test_sizes_are_read_once_and_again_only_for_what_changed(root, scanned):
    first = open_records(root, "train")
    assert len(scanned) == 7
    scanned.clear()
    assert paths(open_records(root, "train")) == paths(first) and not scanned

    changed, added = add(root / "train" / "bee" / "001.jpg", 31, 17), add(root / "train" / "ant" / "002b.jpg", 9, 8)
    touched = root / "train" / "ant" / "000.jpg"
    os.utime(touched, ns=(1, touched.stat().st_mtime_ns + 1))
    (root / "train" / "bee" / "000.jpg").unlink()
    again = open_records(root, "train")
    assert sorted(scanned) == sorted(map(str, (changed, added, touched)))
    for index, path in enumerate(paths(again)):
        with Image.open(path) as image:
            assert (again.widths[index], again.heights[index]) == image.size


def test_the_scan_tells_its_progress(root):
    told = []
    open_records(root, "train", lambda done, total: told.append((done, total)))
    assert told[-1] == (7, 7)
    told.clear()
    open_records(root, "train", lambda done, total: told.append((done, total)))
    assert all(total == 0 for _, total in told)  # sizes are not read again


def test_listing_tells_how_far_it_is_at_every_start(root):
    for _ in range(2):
        told = []
        open_records(root, "train", lambda done, total, told=told: told.append((done, total)))
        listed = [done for done, total in told if total == 0]
        assert listed == [4, 7]  # class by class


def test_splits_are_cached_apart_and_by_their_real_path(root, cache, scanned, tmp_path):
    open_records(root, "train")
    open_records(root, "val")
    assert len(list(cache.iterdir())) == 2
    scanned.clear()
    (tmp_path / "alias").symlink_to(root)
    records = open_records(tmp_path / "alias", "train")
    assert not scanned and records.where(0).startswith(str(tmp_path / "alias"))


@pytest.mark.parametrize("damage", ["cut short", "empty", "flipped byte", "pickle", "wrong shape"])
def test_a_damaged_cache_is_made_again(root, cache, scanned, damage):
    expected = open_records(root, "train").widths.tolist()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    if damage == "pickle":
        np.savez(file, names=np.array([{"an": "object"}], dtype=object))
    elif damage == "wrong shape":
        with np.load(file) as stored:
            columns = dict(stored)
        np.savez(file, **{**columns, "widths": columns["widths"][:-1]})
    else:
        middle = content.index(b"widths") + 165  # among the widths themselves
        flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        file.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "flipped byte": flipped}[damage])
    scanned.clear()
    assert open_records(root, "train").widths.tolist() == expected and len(scanned) == 7
    scanned.clear()
    assert open_records(root, "train").widths.tolist() == expected and not scanned


def test_a_cache_that_cannot_be_written_is_a_warning(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEEDRATE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set FEEDRATE_CACHE to a folder that can be written to"):
        assert len(open_records(root, "train")) == 7


def test_processes_that_scan_at_once_do_not_disturb_each_other(root, cache):
    script = f"from loaders.records import open_records; print(len(open_records({str(root)!r}, 'train')))"
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        assert process.communicate()[0] == b"7\n" and process.returncode == 0
    assert len(list(cache.iterdir())) == 1


def test_sizes_are_pillows_for_odd_files(tmp_path):
    picture = Image.fromarray(smooth_picture(90, 70, 3))
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = {
        "turned.jpg": lambda path: picture.save(path, exif=turned),
        "profile.jpg": lambda path: picture.save(path, icc_profile=bytes(50_000)),
        "progressive.jpg": lambda path: picture.save(path, progressive=True),
        "grey.jpg": lambda path: picture.convert("L").save(path),
        "cmyk.jpg": lambda path: picture.convert("CMYK").save(path),
        "lies.jpg": lambda path: picture.save(path, format="PNG"),
        "palette.png": lambda path: picture.convert("P").save(path),
        "lies.png": lambda path: picture.save(path, format="JPEG"),
    }  # fmt: skip
    (tmp_path / "data" / "a").mkdir(parents=True)
    for name, save in saved.items():
        save(tmp_path / "data" / "a" / name)
    records = open_records(tmp_path / "data", "train")
    assert set(zip(records.widths.tolist(), records.heights.tolist(), strict=True)) == {(90, 70)}


def test_records_can_be_pickled(root):
    records = open_records(root, "train")
    again = pickle.loads(pickle.dumps(records))
    assert paths(again) == paths(records) and again.read(3).tobytes() == records.read(3).tobytes()
