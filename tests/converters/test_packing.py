"""The packing pass: the same bytes for any number of processes, exact statistics, and all or nothing."""

import errno
import fcntl
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from pictures import write_image_folder

from converters import packing
from converters.encode import Encoding
from converters.packing import channel_statistics, pack
from loaders.errors import FeedrateError
from loaders.manifest import read_manifest
from loaders.records import open_records


@pytest.fixture(autouse=True)
def _several_tasks(monkeypatch):
    """Small enough tasks for these small sets to be spread over processes."""
    monkeypatch.setattr(packing, "_CHUNK_SAMPLES", 3)


def splits_of(folder):
    return {split: open_records(folder, split) for split in ("train", "val")}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class Trap:
    """Records that do something to the process that reads sample 20."""

    def __init__(self, records, action, owner):
        self.__dict__.update(classes=records.classes, labels=records.labels, widths=records.widths, channels=None)
        self.__dict__.update(
            heights=records.heights, is_raw=records.is_raw, _records=records, action=action, owner=owner
        )

    def __len__(self):
        return len(self._records)

    def read(self, index):
        if index == 20 and os.getpid() != self.owner:
            if self.action == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a bug")
        return self._records.read(index)

    def where(self, index):
        return self._records.where(index)

    def close(self):
        pass


def test_samples_keep_bytes_labels_and_order(image_folder, tmp_path):
    splits = splits_of(image_folder)
    packed = pack(splits, tmp_path / "out", Encoding(), 1)
    assert packed.num_original == 37 + 23
    for split, source in splits.items():
        records = open_records(tmp_path / "out", split)
        assert records.classes == source.classes
        for name in ("labels", "widths", "heights"):
            assert np.array_equal(getattr(records, name), getattr(source, name))
        for index in range(len(source)):
            assert bytes(records.read(index)) == bytes(source.read(index))


def test_raw_mode_stores_the_decoded_pixels(image_folder, tmp_path):
    splits = splits_of(image_folder)
    pack(splits, tmp_path / "out", Encoding("raw"), 1)
    records = open_records(tmp_path / "out", "train")
    assert records.is_raw.all()
    for index in range(len(records)):
        expected = simplejpeg.decode_jpeg(splits["train"].read(index), "RGB")
        assert np.array_equal(records.read(index).reshape(expected.shape), expected)


@pytest.mark.parametrize("encoding", [Encoding(max_side_px=60), Encoding("raw", 50)], ids=["jpg", "raw"])
def test_any_number_of_processes_writes_the_same_bytes(image_folder, tmp_path, encoding):
    written = {}
    for num_workers in (1, 2, 3):
        out = tmp_path / str(num_workers)
        pack(splits_of(image_folder), out, encoding, num_workers)
        written[num_workers] = [(out / name).read_bytes() for name in files(out)]
        assert files(out) == ["manifest.json", "train.beton", "val.beton"]
    assert written[1] == written[2] == written[3]


@pytest.mark.parametrize(
    "encoding", [Encoding(), Encoding(max_side_px=60), Encoding("raw")], ids=["kept", "jpg", "raw"]
)
def test_statistics_are_those_of_all_pixels_that_will_be_read(image_folder, tmp_path, encoding):
    pack(splits_of(image_folder), tmp_path / "out", encoding, 1)
    records = open_records(tmp_path / "out", "train")
    pixels = []
    for index in range(len(records)):
        data = records.read(index)
        pixels.append((data if records.is_raw[index] else simplejpeg.decode_jpeg(data, "RGB")).reshape(-1, 3))
    reference = np.concatenate(pixels).astype(np.float64)
    assert np.allclose(records.channels.mean, reference.mean(axis=0), rtol=1e-12)
    assert np.allclose(records.channels.std, reference.std(axis=0), rtol=1e-10)


def test_statistics_of_a_trillion_pixels_are_exact():
    histogram = np.zeros((3, 256), np.int64)
    histogram[:, 100] = 10**12
    histogram[:, 101] = 1
    mean, std = channel_statistics(histogram)
    assert mean[0] == 100 + 1 / (10**12 + 1)
    assert std[0] == pytest.approx(1e-6, rel=1e-9)


def test_the_manifest_tells_sizes_counts_and_the_checksum(image_folder, tmp_path):
    pack(splits_of(image_folder), tmp_path, Encoding(), 1)
    split = read_manifest(tmp_path).splits["train"]
    told = subprocess.run(["sha256sum", tmp_path / "train.beton"], capture_output=True, text=True, check=True).stdout
    assert told.split()[0] == split.sha256
    assert split.num_bytes == (tmp_path / "train.beton").stat().st_size
    assert split.samples_per_class == [13, 11, 13] and split.num_samples == 37


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_broken_image_is_named_and_nothing_stays(tmp_path, num_workers):
    source = write_image_folder(tmp_path / "in", {"train": {"ant": 30, "bee": 30}, "val": {"ant": 3, "bee": 3}})
    broken = source / "train" / "bee" / "017.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(FeedrateError, match=f"{broken}.*Premature end"):
        pack(splits_of(source), tmp_path / "out", Encoding(), num_workers)
    assert files(tmp_path / "out") == []


def test_a_broken_image_in_the_second_split_leaves_nothing_of_the_first(tmp_path):
    source = write_image_folder(tmp_path / "in", {"train": {"ant": 3}, "val": {"ant": 70}})
    broken = source / "val" / "ant" / "048.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(FeedrateError, match="048"):
        pack(splits_of(source), tmp_path / "out", Encoding(), 1)
    assert files(tmp_path / "out") == []


def test_a_killed_worker_is_an_error_that_names_the_image(image_folder, tmp_path):
    records = Trap(open_records(image_folder, "train"), "die", os.getpid())
    with pytest.raises(FeedrateError, match=f"SIGKILL.*{records.where(20)}"):
        pack({"train": records}, tmp_path / "out", Encoding(), 2)
    assert files(tmp_path / "out") == []


def test_a_bug_in_a_worker_keeps_its_type_and_tells_its_place(image_folder, tmp_path):
    records = Trap(open_records(image_folder, "train"), "raise", os.getpid())
    with pytest.raises(RuntimeError, match="a bug") as caught:
        pack({"train": records}, tmp_path / "out", Encoding(), 2)
    assert "test_packing.py" in caught.value.__notes__[0]


def test_a_packed_folder_is_not_overwritten_unless_told(image_folder, tmp_path):
    splits = splits_of(image_folder)
    pack(splits, tmp_path, Encoding(), 1)
    before = (tmp_path / "train.beton").read_bytes()
    with pytest.raises(FeedrateError, match="--overwrite"):
        pack(splits, tmp_path, Encoding("raw"), 1)
    assert (tmp_path / "train.beton").read_bytes() == before
    pack({"train": splits["train"]}, tmp_path, Encoding("raw"), 1, overwrite=True)
    assert open_records(tmp_path, "train").is_raw.all()
    assert files(tmp_path) == ["manifest.json", "train.beton"]


def test_an_interrupted_overwrite_leaves_no_manifest_of_other_files(image_folder, tmp_path, monkeypatch):
    splits = splits_of(image_folder)
    pack(splits, tmp_path, Encoding(), 1)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(splits, tmp_path, Encoding("raw"), 1, overwrite=True)
    assert files(tmp_path) == []


def test_two_passes_into_one_folder_do_not_mix(image_folder, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(FeedrateError, match="another process"):
        pack(splits_of(image_folder), tmp_path, Encoding(), 1)
    os.close(descriptor)


def test_a_disk_that_surely_is_too_small_is_refused_beforehand(image_folder, tmp_path, monkeypatch):
    usage = packing.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    with pytest.raises(FeedrateError, match="GB free"):
        pack(splits_of(image_folder), tmp_path, Encoding("raw"), 1)
    assert files(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A real disk of 200 kB; without the right to mount, a reason to skip."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small disk: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(image_folder, tiny_disk, monkeypatch, num_workers):
    monkeypatch.setattr(packing, "_check_space", lambda out, num_bytes: None)
    with pytest.raises(FeedrateError, match="GB free") as caught:
        pack(splits_of(image_folder), tiny_disk / "out", Encoding("raw"), num_workers)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert files(tiny_disk / "out") == []


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(image_folder, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(packing, "_measure", fail)
    with pytest.raises(OSError, match="broken disk"):
        pack(splits_of(image_folder), tmp_path, Encoding(), 1)
    assert files(tmp_path) == []


def test_an_out_that_is_a_file_is_refused(image_folder, tmp_path):
    Path(tmp_path / "out").write_text("")
    with pytest.raises(FeedrateError, match="is a file"):
        pack(splits_of(image_folder), tmp_path / "out", Encoding(), 1)
