"""Kaggle's tree: from wherever one points, and refused where tables and images do not fit."""

import shutil
from pathlib import Path

import pytest
from imagenet_forms import (
    LENIENT,
    VAL_WNIDS,
    WNIDS,
    contents,
    make_pictures,
    open_as,
    refused_source,
    val_name,
    write_kaggle,
    write_labels,
)

LINES = [(val_name(number).removesuffix(".JPEG"), wnid) for number, wnid in enumerate(VAL_WNIDS, 1)]
INSIDE = "ILSVRC/Data/CLS-LOC"


@pytest.fixture
def root(tmp_path) -> Path:
    return write_kaggle(tmp_path / "data", make_pictures())


@pytest.mark.parametrize("below", ["", "ILSVRC", INSIDE])
def test_the_tree_is_read_from_three_places(root, below):
    pictures = make_pictures()
    splits = open_as(root / below)
    assert contents(splits["train"]) == pictures.expected_train()
    assert contents(splits["val"]) == pictures.expected_val()
    assert "test/" in splits["val"].notes["left_out"]


def test_images_and_table_moved_to_one_folder_are_read(root, tmp_path):
    (root / INSIDE).rename(tmp_path / "moved")
    assert "LOC_val_solution.csv" in refused_source(tmp_path / "moved")
    (root / "LOC_val_solution.csv").rename(tmp_path / "moved" / "LOC_val_solution.csv")
    assert contents(open_as(tmp_path / "moved")["val"]) == make_pictures().expected_val()


def test_validation_images_sorted_into_class_folders_need_no_table(root):
    (root / "LOC_val_solution.csv").unlink()
    for number, wnid in enumerate(VAL_WNIDS, 1):
        (root / INSIDE / "val" / wnid).mkdir(exist_ok=True)
        (root / INSIDE / "val" / val_name(number)).rename(root / INSIDE / "val" / wnid / val_name(number))
    found = contents(open_as(root)["val"])
    expected = {(name, label, data) for name, label, data in make_pictures().expected_val()}
    assert {(Path(name).name, label, data) for name, label, data in found} == expected


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(root, split):
    shutil.rmtree(root / INSIDE / split)
    (root / INSIDE / split).mkdir()
    assert f"{root / INSIDE / split} holds no folders of classes" in refused_source(root)


def test_either_split_can_be_alone(root, tmp_path):
    (root / INSIDE / "train").rename(tmp_path / "train")
    splits = open_as(root)
    assert list(splits) == ["val"] and splits["val"].classes == WNIDS
    (root / INSIDE / "train").parent.joinpath("val").rename(tmp_path / "val")
    assert "neither train/ nor val/" in refused_source(root)
    (tmp_path / "train").rename(root / INSIDE / "train")
    assert list(open_as(root)) == ["train"]


def test_a_missing_table_is_named(root):
    (root / "LOC_val_solution.csv").unlink()
    assert "LOC_val_solution.csv" in refused_source(root)


def test_an_image_without_a_line_is_refused(root):
    write_labels(root, LINES[1:])
    message = refused_source(root, rules=LENIENT)
    assert "no line for ILSVRC2012_val_00000001" in message and "LOC_val_solution.csv" in message


def test_a_line_without_an_image_is_a_bad_sample(root):
    (root / INSIDE / "val" / val_name(3)).unlink()
    message = refused_source(root)
    assert val_name(3) in message and "not there" in message
    samples = open_as(root, rules=LENIENT)["val"]
    assert [bad.name for bad in samples.bad] == [val_name(3)] and len(samples) == 6
    assert [name for name, _, _ in contents(samples)] == [val_name(n) for n in (1, 2, 4, 5, 6, 7)]


def test_an_image_that_is_a_link_to_nothing_is_told_once(root):
    image = root / INSIDE / "val" / val_name(2)
    image.unlink()
    image.symlink_to("nowhere")
    (bad,) = open_as(root, rules=LENIENT)["val"].bad
    assert (bad.name, bad.reason) == (val_name(2), "it is a link to nothing")


def test_an_unknown_wnid_is_refused(root):
    write_labels(root, [*LINES[:-1], (LINES[-1][0], "n99999999")])
    message = refused_source(root)
    assert "n99999999" in message and LINES[-1][0] in message


def test_a_class_folder_that_the_mapping_does_not_name_is_refused(root):
    (root / INSIDE / "train" / WNIDS[0]).rename(root / INSIDE / "train" / "n00000001")
    assert "n00000001" in refused_source(root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image,class\nx,y\n",
        "ImageId,PredictionString\n",
        "ImageId,PredictionString\nILSVRC2012_val_00000001,\n",
        "ImageId,PredictionString\nILSVRC2012_val_00000001\n",
        f"ImageId,PredictionString\na,{WNIDS[0]} 1\na,{WNIDS[1]} 1\n",
    ],
    ids=["empty", "other columns", "no lines", "no class", "short line", "twice"],
)
def test_a_table_that_makes_no_sense_is_refused(root, text):
    (root / "LOC_val_solution.csv").write_text(text)
    assert "is not Kaggle's table of labels" in refused_source(root)


def test_half_sorted_validation_images_are_refused(root):
    (root / INSIDE / "val" / WNIDS[0]).mkdir()
    assert f"'{WNIDS[0]}'" in refused_source(root)
