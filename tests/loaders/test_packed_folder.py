"""A packed folder opens in whatever format it holds, with the same samples; or is refused with a sentence."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from packed_by_hand import FORMATS, beton_bytes, change_manifest, change_split, samples_of, write_packed
from stored_samples import refused

from loaders import packed_folder
from loaders.beton_records import BetonRecords
from loaders.errors import FeedrateError, LoaderError
from loaders.packed_folder import list_splits, open_packed, open_split, recognises
from loaders.raw_records import RawRecords
from loaders.records import open_records, records_fingerprint
from loaders.shard_records import ShardRecords

KINDS = {"beton": BetonRecords, "raw": RawRecords, "shards": ShardRecords}
every_format = pytest.mark.parametrize("kind", FORMATS)


@every_format
def test_samples_come_back_as_they_were_written(packed_once, image_folder, kind):
    for split in ("train", "val"):
        samples = samples_of(image_folder, split)
        records = open_packed(packed_once, split, kind)
        assert isinstance(records, KINDS[kind]) and len(records) == len(samples)
        for column, expected in (
            (records.labels, [sample.label for sample in samples]),
            (records.widths, [sample.pixels.shape[1] for sample in samples]),
            (records.heights, [sample.pixels.shape[0] for sample in samples]),
        ):
            assert column.tolist() == expected
        assert records.labels.dtype == np.int64 and records.is_raw.dtype == np.bool_
        assert records.widths.dtype == records.heights.dtype == np.int32
        for index, sample in enumerate(samples):
            stored = sample.pixels.tobytes() if records.is_raw[index] else sample.jpeg
            assert bytes(records.read(index)) == stored


def test_only_beton_mixes_encoded_and_raw(packed_once):
    raw = {kind: open_packed(packed_once, "train", kind).is_raw for kind in FORMATS}
    assert raw["raw"].all() and not raw["shards"].any() and 0 < raw["beton"].sum() < 37


@every_format
def test_reading_copies_nothing_and_cannot_write(packed_once, kind):
    records = open_packed(packed_once, "train", kind)
    first, again = records.read(1), records.read(1)
    assert np.shares_memory(first, again) and not first.flags.writeable and first.dtype == np.uint8


@every_format
def test_records_can_be_pickled_and_read_by_threads(packed_once, kind):
    opened = open_packed(packed_once, "train", kind)
    expected = [bytes(opened.read(n)) for n in range(37)]
    records = pickle.loads(pickle.dumps(opened))
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda n: bytes(records.read(n % 37)), range(370)))
    assert read == expected * 10
    assert records_fingerprint(records) == records_fingerprint(opened)


@every_format
def test_closing_twice_is_fine_and_reading_then_is_an_error_that_names_the_sample(packed_once, kind):
    records = open_packed(packed_once, "train", kind)
    kept = records.read(0)
    before = bytes(kept)
    records.close()
    records.close()
    assert bytes(kept) == before
    for closed in (records, pickle.loads(pickle.dumps(records))):
        with pytest.raises(LoaderError, match=r"(sample 12 |000000012\.jpg) ?at byte .* closed"):
            closed.read(12)


@every_format
def test_a_file_that_changes_behind_open_records_is_noticed(packed, kind):
    records = open_packed(packed, "val", kind)
    place = packed / {"beton": "val.beton", "raw": "val.npy", "shards": "val-000001.tar"}[kind]
    os.truncate(place, place.stat().st_size - 512)
    with pytest.raises(LoaderError, match=rf"{place.name} has changed"):
        pickle.loads(pickle.dumps(records)).read(13)


@every_format
def test_a_folder_is_refused_as_a_whole_when_any_file_is_cut_short(packed, kind):
    place = packed / {"beton": "val.beton", "raw": "val.npy", "shards": "val-000001.tar"}[kind]
    os.truncate(place, place.stat().st_size - 1)
    assert f"{place.name} has" in refused(packed)


def test_names_and_statistics_are_those_of_the_manifest(packed_once):
    assert list_splits(packed_once) == ("train", "val")
    for kind in FORMATS:
        records = open_packed(packed_once, "val", kind)
        assert records.classes == ("ant", "bee", "cat")
        assert records.channels.mean == (120.5, 115.0, 100.25) and records.channels.std == (60.0, 59.5, 61.0)
        assert "train" in records.channels.source


def test_the_first_format_that_is_there_is_taken(image_folder, tmp_path):
    splits = {"train": samples_of(image_folder, "train")[:3]}
    for number, formats in enumerate((FORMATS, ("shards", "raw"), ("shards",))):
        folder = write_packed(tmp_path / str(number), splits, formats)
        expected = next(kind for kind in FORMATS if kind in formats)
        assert recognises(folder) and isinstance(open_records(folder, "train"), KINDS[expected])


def test_a_format_or_split_that_is_not_there_is_refused(image_folder, tmp_path):
    folder = write_packed(tmp_path, {"train": samples_of(image_folder, "train")[:3]}, ("shards",))
    with pytest.raises(FeedrateError, match=r"'train' split as shards, not as raw"):
        open_packed(folder, "train", "raw")
    with pytest.raises(FeedrateError, match=r"no 'val' split: it holds train"):
        open_packed(folder, "val")
    change_split(folder, "train", formats={"hdf5": []})
    assert "as hdf5, not as beton or raw or shards" in refused(folder)


def test_one_beton_file_of_a_packed_folder_is_opened_with_its_manifest(packed_once):
    assert list_splits(packed_once / "val.beton") == ("val",)
    assert open_split(packed_once / "val.beton", "val").classes == ("ant", "bee", "cat")
    assert open_records(packed_once / "val.beton", "val").channels is not None


def test_a_beton_file_that_the_manifest_does_not_name_is_a_bare_one(packed):
    (packed / "other.beton").write_bytes((packed / "val.beton").read_bytes())
    records = open_records(packed / "other.beton", "train")
    assert records.classes == ("0", "1", "2") and records.channels is None


def test_a_bare_file_is_train_unless_its_name_says_otherwise(tmp_path):
    for name, split in (
        ("a.beton", "train"),
        ("val_500_0.50_90.ffcv", "val"),
        ("cifar-test.beton", "val"),
        ("latest_train.ffcv", "train"),
    ):
        (tmp_path / name).write_bytes(beton_bytes([(b"\xff\xd8jpeg", False, 30, 20, 0)], 1 << 12))
        assert recognises(tmp_path / name) and list_splits(tmp_path / name) == (split,)
        assert len(open_records(tmp_path / name, split)) == 1
    assert not recognises(tmp_path / "a.zip")


def test_files_of_ffcv_lie_together_one_a_split_with_the_classes_of_both(tmp_path):
    for name, labels in (("train_500_0.50_90.ffcv", (0, 4, 1)), ("val_500_0.50_90.ffcv", (2, 1))):
        stored = [(b"\xff\xd8jpeg", False, 30, 20, label) for label in labels]
        (tmp_path / name).write_bytes(beton_bytes(stored, 1 << 12))
    assert recognises(tmp_path) and list_splits(tmp_path) == ("train", "val")
    for split, labels in (("train", [0, 4, 1]), ("val", [2, 1])):
        records = open_records(tmp_path, split)
        assert records.classes == ("0", "1", "2", "3", "4") and records.labels.tolist() == labels
    (tmp_path / "train_256.beton").write_bytes((tmp_path / "train_500_0.50_90.ffcv").read_bytes())
    assert "train_256.beton and train_500_0.50_90.ffcv, both of which are 'train'" in refused(tmp_path)


def test_a_folder_of_one_beton_file_has_one_split(tmp_path):
    (tmp_path / "mine.beton").write_bytes(beton_bytes([(b"\xff\xd8jpeg", False, 30, 20, 0)], 1 << 12))
    assert list_splits(tmp_path) == ("train",)
    assert "has no 'val' split: it holds train" in refused(tmp_path, "val")


@every_format
def test_a_folder_of_packed_files_without_a_manifest_says_so(image_folder, tmp_path, kind):
    folder = write_packed(tmp_path, {"train": samples_of(image_folder, "train")[:3]}, (kind,))
    (folder / "manifest.json").unlink()
    assert "no manifest.json" in refused(folder)


def test_a_folder_whose_packing_is_not_finished_says_so(tmp_path):
    (tmp_path / "packing.partial").mkdir()
    assert "its packing never ended" in refused(tmp_path)


def test_class_names_that_are_no_utf8_have_a_fingerprint(packed):
    change_manifest(packed, classes=["ant", "bee", os.fsdecode(b"c\xe4t")])
    records = open_records(packed, "train")
    assert records.classes[2] == os.fsdecode(b"c\xe4t") and len(records_fingerprint(records)) == 64


@every_format
def test_samples_that_the_manifest_does_not_count_are_refused(packed, kind):
    change_split(packed, "train", samples_per_class=[12, 12, 13])
    with pytest.raises(FeedrateError, match="not those"):
        open_packed(packed, "train", kind)


@every_format
def test_another_number_of_samples_is_refused(packed, kind):
    change_split(packed, "train", num_samples=36)
    with pytest.raises(FeedrateError, match=r"\[36\]|\(36\)"):
        open_packed(packed, "train", kind)


@every_format
@pytest.mark.parametrize("num", [0, -1])
def test_a_split_of_no_samples_is_refused(packed, kind, num):
    change_split(packed, "train", num_samples=num)
    with pytest.raises(FeedrateError, match=f"lists {num} samples"):
        open_packed(packed, "train", kind)


@every_format
def test_too_few_classes_for_the_labels_are_refused(packed, kind):
    change_manifest(packed, classes=["ant", "bee"], class_names=["Ant", "Bee"])
    for split, counts in (("train", [13, 24]), ("val", [7, 16])):
        change_split(packed, split, samples_per_class=counts)
    with pytest.raises(FeedrateError, match=r"label 2|not 0 … 1"):
        open_packed(packed, "train", kind)


@pytest.mark.parametrize(("kind", "num_files"), [("beton", 0), ("beton", 2), ("raw", 0), ("raw", 2), ("shards", 0)])
def test_a_format_with_another_number_of_files_is_refused(packed, kind, num_files):
    name = {"beton": "train.beton", "raw": "train.npy", "shards": "train-000000.idx"}[kind]
    file = {"name": name, "num_bytes": (packed / name).stat().st_size, "sha256": ""}
    change_split(packed, "train", formats={kind: [file] * (num_files or (kind == "shards"))})
    with pytest.raises(FeedrateError, match=f"in {num_files} files"):
        open_packed(packed, "train", kind)


def test_a_manifest_is_read_and_its_files_are_looked_for_once(packed_once, monkeypatch):
    read, read_manifest = [], packed_folder.read_manifest
    monkeypatch.setattr(packed_folder, "read_manifest", lambda folder: read.append(folder) or read_manifest(folder))
    for path in (packed_once, packed_once / "train.beton"):
        for prefers in (None, "raw", "beton", "nothing"):
            records = open_records(path, "train", prefers=prefers)
            assert isinstance(records, RawRecords) == (prefers == "raw" and path == packed_once)
            assert [read.pop()] == [packed_once] and not read
    with pytest.raises(FeedrateError, match=r"train.beton has no 'val' split: it holds train$"):
        open_records(packed_once / "train.beton", "val")
