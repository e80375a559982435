"""Packed sets as a source: byte ranges of their files, and the names that they were packed with."""

import os
import sys
from pathlib import Path

import pytest
from imagenet_forms import open_as

sys.path.append(str(Path(__file__).resolve().parents[1] / "loaders"))
from packed_by_hand import Sample, beton_bytes, samples_of, write_packed


@pytest.fixture
def samples(image_folder) -> dict[str, list[Sample]]:
    return {split: samples_of(image_folder, split) for split in ("train", "val")}


@pytest.mark.parametrize("format", ["beton", "raw", "shards"])
def test_every_format_gives_byte_ranges_with_names(tmp_path, samples, format):
    root = write_packed(tmp_path, samples, (format,))
    for split, found in open_as(root, "folder").items():
        assert found.classes == ("ant", "bee", "cat") and found.class_names == ("Ant", "Bee", "Cat")
        assert found.labels.tolist() == [sample.label for sample in samples[split]]
        for index, sample in enumerate(samples[split]):
            stored = found.stored(index)
            is_raw = format == "raw" or (format == "beton" and index % 3 == 0)
            assert stored.read().tobytes() == (sample.pixels.tobytes() if is_raw else sample.jpeg)
            assert stored.raw_size == (sample.pixels.shape[1::-1] if is_raw else None)
            assert stored.name == sample.name and stored.data is None and found.num_bytes[index] == stored.num_bytes


def test_a_single_file_without_a_manifest_is_read(tmp_path, samples):
    rows = [(s.jpeg, False, s.pixels.shape[1], s.pixels.shape[0], s.label) for s in samples["val"]]
    path = tmp_path / "imagenet-val.beton"
    path.write_bytes(beton_bytes(rows, 1 << 16))
    (found,) = open_as(path, "folder").values()
    assert found.classes == found.class_names == ("0", "1", "2")
    assert found.stored(3).name == "imagenet-val.beton/3" and found.stored(3).read().tobytes() == rows[3][0]
    before = found.fingerprint()
    assert before == open_as(path, "folder")["val"].fingerprint()
    os.utime(path, ns=(0, 0))
    assert open_as(path, "folder")["val"].fingerprint() != before


def test_a_folder_of_ffcvs_files_is_listed_split_by_split(tmp_path, samples):
    for split in ("train", "val"):
        rows = [(s.jpeg, False, s.pixels.shape[1], s.pixels.shape[0], s.label) for s in samples[split]]
        (tmp_path / f"{split}_256.ffcv").write_bytes(beton_bytes(rows, 1 << 16))
    found = open_as(tmp_path, "folder")
    assert list(found) == ["train", "val"] and found["val"].classes == ("0", "1", "2")
    stored = found["val"].stored(1)
    assert stored.name == "val_256.ffcv/1" and stored.read().tobytes() == samples["val"][1].jpeg
    before = found["val"].fingerprint()
    os.utime(tmp_path / "val_256.ffcv", ns=(0, 0))
    assert open_as(tmp_path, "folder")["val"].fingerprint() != before
