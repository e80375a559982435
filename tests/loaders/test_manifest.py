"""The manifest is whole, true of its files, or refused with a sentence."""

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest
from packed_by_hand import change_manifest, change_split

from loaders.errors import FeedrateError
from loaders.manifest import MANIFEST_NAME, SCHEMA_VERSION, read_manifest, write_manifest
from loaders.records import open_records


def content_of(folder):
    return json.loads((folder / MANIFEST_NAME).read_text())


def test_it_comes_back_as_it_was_written(packed):
    manifest = read_manifest(packed)
    assert asdict(manifest) == content_of(packed)
    assert manifest.schema_version == SCHEMA_VERSION == 4
    written = write_manifest(packed, manifest).read_bytes()
    assert read_manifest(packed) == manifest
    assert write_manifest(packed, manifest).read_bytes() == written


def test_names_are_stored_as_people_write_them(packed):
    change_manifest(packed, class_names=["Ameise", "Biene", "Katze, 猫"])
    assert "猫" in write_manifest(packed, read_manifest(packed)).read_text(encoding="utf-8")


def test_names_that_are_no_utf8_come_back_and_the_file_stays_json(packed):
    names = ["ant", os.fsdecode(b"b\xe9e"), "猫\ud800"]
    written = write_manifest(packed, replace(read_manifest(packed), classes=names))
    assert json.loads(written.read_text(encoding="utf-8"))["classes"] == names
    assert read_manifest(packed).classes == names


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"schema_version": 1}', "\x00\xff", "9" * 5000])
def test_what_is_no_manifest_is_refused(packed, content):
    (packed / MANIFEST_NAME).write_text(content)
    with pytest.raises(FeedrateError, match="manifest"):
        open_records(packed, "train")


@pytest.mark.parametrize("version", [1, 2, 3, 7, "4", None])
def test_another_schema_version_is_refused_by_its_number(packed, version):
    change_manifest(packed, schema_version=version)
    with pytest.raises(FeedrateError, match=f"version {version}, this reads 4: pack the data set again"):
        read_manifest(packed)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "ant"},
        {"classes": ["ant", "bee"]},
        {"classes": [0, 1, 2]},
        {"class_names": ["Ant", "Bee"]},
        {"splits": []},
        {"splits": {}},
        {"splits": {"train": {}}},
        {"statistics": None},
        {"statistics": {"mean": [1.0], "std": [1.0], "split": "train", "num_samples": 1, "method": ""}},
        {"statistics": {"mean": ["1"] * 3, "std": [1.0] * 3, "split": "train", "num_samples": 1, "method": ""}},
        {"settings": None},
        {"versions": []},
        {"more": 1},
    ],
)
def test_a_key_that_is_not_what_it_should_be_is_refused(packed, change):
    change_manifest(packed, **change)
    with pytest.raises(FeedrateError, match=f"{MANIFEST_NAME} is not a manifest"):
        read_manifest(packed)


@pytest.mark.parametrize("key", ["classes", "class_names", "splits", "statistics", "settings", "source", "versions"])
def test_a_key_that_is_missing_is_refused(packed, key):
    content = content_of(packed)
    del content[key]
    (packed / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(FeedrateError, match=key):
        read_manifest(packed)


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": "37"},
        {"num_samples": True},
        {"num_bad": None},
        {"samples_per_class": [37]},
        {"samples": "train.samples.npz"},
        {"formats": []},
        {"formats": {}},
        {"formats": {"beton": [{"name": "train.beton"}]}},
        {"formats": {"beton": "train.beton"}},
    ],
)
def test_a_split_that_is_not_what_it_should_be_is_refused(packed, change):
    change_split(packed, "train", **change)
    with pytest.raises(FeedrateError, match=f"{MANIFEST_NAME} is not a manifest"):
        read_manifest(packed)


@pytest.mark.parametrize(
    "name", ["val.beton", "val.npy", "val-000001.tar", "val-000001.idx", "val.samples.npz", "train.samples.npz"]
)
def test_a_file_that_is_missing_or_of_another_size_is_named(packed, name):
    with open(packed / name, "ab") as file:
        file.write(b"x")
    with pytest.raises(FeedrateError, match=f"{name} has .* bytes"):
        open_records(packed, "train")
    (packed / name).unlink()
    with pytest.raises(FeedrateError, match=f"{name} is named .* missing"):
        open_records(packed, "train")


@pytest.mark.parametrize("folder", ["..", ".", "inner/.."])
def test_however_its_folder_is_called_a_sound_set_opens(packed, folder, tmp_path, monkeypatch):
    shutil.copytree(packed, tmp_path / "set")
    (tmp_path / "set" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "set" / ("inner" if folder == ".." else ""))
    open_records(folder, "train").close()


@pytest.mark.parametrize("name", ["../train.beton", "/etc/passwd", "inner/train.beton", "..", "", "."])
def test_a_file_elsewhere_is_refused(packed, name):
    change_split(packed, "train", formats={"beton": [{"name": name, "num_bytes": 1, "sha256": ""}]})
    with pytest.raises(FeedrateError, match="not a file beside it"):
        read_manifest(packed)
