"""The manifest is whole, true of its files, or refused with a sentence."""

import json

import pytest

from converters.encode import Encoding
from converters.packing import pack
from loaders.beton_records import list_splits, open_split
from loaders.errors import FeedrateError
from loaders.manifest import MANIFEST_NAME, read_manifest, write_manifest
from loaders.records import open_records


@pytest.fixture
def packed(image_folder, tmp_path):
    splits = {split: open_records(image_folder, split) for split in ("train", "val")}
    pack(splits, tmp_path / "packed", Encoding(), num_workers=1)
    return tmp_path / "packed"


def change(folder, **content):
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


def test_it_comes_back_as_it_was_written(packed, tmp_path):
    manifest = read_manifest(packed)
    for split in manifest.splits.values():
        (tmp_path / split.file).write_bytes((packed / split.file).read_bytes())
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_a_packed_folder_carries_names_and_statistics(packed):
    assert list_splits(packed) == ("train", "val")
    records = open_records(packed, "val")
    manifest = read_manifest(packed)
    assert records.classes == ("ant", "bee", "cat")
    assert records.channels.mean == tuple(manifest.channel_mean)
    assert records.channels.std == tuple(manifest.channel_std)
    assert "train" in records.channels.source
    records.close()


def test_one_file_of_a_packed_folder_is_opened_with_its_manifest(packed):
    assert list_splits(packed / "val.beton") == ("val",)
    assert open_split(packed / "val.beton", "val", None).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"schema_version": 1}', "\x00\xff"])
def test_what_is_no_manifest_is_refused(packed, content):
    (packed / MANIFEST_NAME).write_text(content)
    with pytest.raises(FeedrateError, match="manifest"):
        open_records(packed, "train")


def test_another_schema_version_is_refused_by_its_number(packed):
    change(packed, schema_version=7)
    with pytest.raises(FeedrateError, match="version 7"):
        read_manifest(packed)


def test_a_missing_file_is_named(packed):
    (packed / "val.beton").unlink()
    with pytest.raises(FeedrateError, match=r"val\.beton.* missing"):
        open_records(packed, "train")


def test_a_file_of_another_size_is_named(packed):
    with open(packed / "train.beton", "ab") as file:
        file.write(b"x")
    with pytest.raises(FeedrateError, match=r"train\.beton"):
        open_records(packed, "train")


def test_a_file_with_other_samples_of_the_same_size_is_refused(packed):
    content = json.loads((packed / MANIFEST_NAME).read_text())
    content["splits"]["train"]["samples_per_class"] = [12, 12, 13]
    change(packed, **content)
    with pytest.raises(FeedrateError, match="not those"):
        open_records(packed, "train")


def test_too_few_classes_for_the_labels_are_refused(packed):
    change(packed, classes=["ant", "bee"])
    with pytest.raises(FeedrateError, match="label 2"):
        open_records(packed, "train")
