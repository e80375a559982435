"""The packing pass: the same bytes for any number of processes and interruptions, exact statistics, honest files."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import simplejpeg
from listed import listed
from pictures import write_image_folder

from converters import crew, out_folder, packing, split_pass
from converters.channel_statistics import channel_statistics
from converters.encode import Encoding
from converters.inspection import checksums
from converters.packing import PackSettings, pack
from converters.progress import silent_phase
from converters.samples import BadSample, Stored
from converters.sources.opening import SourceOptions, open_source
from converters.split_pass import Rules, packing_order
from loaders.errors import FeedrateError
from loaders.manifest import read_manifest
from loaders.native import library
from loaders.records import open_records
from loaders.sample_table import SampleTable

ALL = ("beton", "shards", "raw")
HAS_KERNEL = library.load() is not None


@pytest.fixture(autouse=True)
def _several_tasks(monkeypatch):
    """Small enough tasks for these small sets to be spread over processes."""
    monkeypatch.setattr(split_pass, "_TASK_SAMPLES", 3)


def files(place):
    return sorted(path.name for path in place.iterdir())


def contents(place):
    return {name: (place / name).read_bytes() for name in files(place)}


def settings(*formats, seed=0, **encoding):
    return PackSettings(Encoding(**encoding), formats or ("beton",), seed)


class Trap(Stored):
    """A sample that does something to the process that reads it, unless that is the one that runs the tests."""

    def read(self):
        assert "pytest" not in Path("/proc/self/cmdline").read_text()
        if self.name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        raise RuntimeError("a bug")


def trapped(source, action):
    """The folder's training samples with a trap among them."""
    samples = listed(source)["train"]
    plain = samples.stored
    samples.stored = lambda index: Trap(action, str(samples.paths[20])) if index == 20 else plain(index)
    return {"train": samples}


def test_samples_keep_bytes_and_labels_in_a_shuffled_order_that_the_seed_decides(image_folder, tmp_path):
    splits = listed(image_folder)
    packed = pack(splits, tmp_path / "out", settings(), 0)
    assert packed.num_original == 37 + 23 and not packed.was_there
    for split, source in splits.items():
        records = open_records(tmp_path / "out", split)
        order = packing_order(len(source), 0)
        assert sorted(order.tolist()) == list(range(len(source))) != order.tolist()
        assert records.labels.tolist() == source.labels[order].tolist()
        for index, origin in enumerate(order.tolist()):
            assert bytes(records.read(index)) == source.paths[origin].read_bytes()
    pack(splits, tmp_path / "other", settings(seed=1), 0)
    assert (tmp_path / "other" / "train.beton").read_bytes() != (tmp_path / "out" / "train.beton").read_bytes()
    pack(splits, tmp_path / "plain", settings(seed=None), 0)
    assert open_records(tmp_path / "plain", "train").labels.tolist() == splits["train"].labels.tolist()


def test_the_order_of_packing_never_changes():
    assert packing_order(10, 0).tolist() == [4, 8, 1, 0, 3, 9, 7, 6, 5, 2]
    assert packing_order(10, 7).tolist() == [0, 4, 3, 6, 1, 7, 5, 9, 8, 2]


def test_three_formats_in_one_pass_hold_the_same(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path, settings(*ALL, limit_px=60), 2)
    assert {"train.beton", "train-000000.tar", "train-000000.idx", "train.npy", "train.samples.npz"} <= set(
        files(tmp_path)
    )
    manifest = read_manifest(tmp_path)
    records = open_records(tmp_path, "train")
    table = SampleTable(tmp_path / "train.samples.npz", 37)
    raw = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert raw.shape == (manifest.splits["train"].formats["raw"][0].num_bytes - 128,)
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    for index in range(37):
        name, jpeg = members[2 * index]
        assert name == f"{index:09d}.jpg" and jpeg == bytes(records.read(index))
        assert members[2 * index + 1] == (f"{index:09d}.cls", str(records.labels[index]).encode())
        start, size = int(table.column("shard_position")[index]), int(table.column("shard_bytes")[index])
        assert (tmp_path / "train-000000.tar").read_bytes()[start : start + size] == jpeg
        height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
        begin = int(table.column("raw_position")[index])
        pixels = raw[begin : begin + 3 * width * height].reshape(height, width, 3)
        assert np.abs(pixels.astype(int) - simplejpeg.decode_jpeg(jpeg, "RGB")).mean() < 6


@pytest.mark.parametrize(
    "wanted",
    [
        settings(*ALL, limit_px=60),
        settings("beton", write_mode="mix", jpeg_share=0.4),
        settings("raw", "beton", write_mode="raw", limit_px=50, limited="shortest"),
        settings("shards", seed=None),
    ],
    ids=["all", "mix", "raw", "shards"],
)
def test_any_number_of_processes_writes_the_same_bytes(image_folder, tmp_path, wanted):
    wanted = replace(wanted, shard_bytes=1 << 20)
    for num_workers in (0, 1, 2, 3):
        pack(listed(image_folder), tmp_path / str(num_workers), wanted, num_workers)
        assert contents(tmp_path / str(num_workers)) == contents(tmp_path / "0")


def test_a_mix_holds_the_share_asked_for_and_the_same_one_in_any_order(tmp_path):
    source = write_image_folder(tmp_path / "in", {"train": {"ant": 200, "bee": 100}})
    for name, seed in (("a", 0), ("b", 0)):
        pack(listed(source), tmp_path / name, settings(seed=seed, write_mode="mix", jpeg_share=0.3), 0)
    records = open_records(tmp_path / "a", "train")
    assert 0.6 < records.is_raw.mean() < 0.8
    assert np.array_equal(records.is_raw, open_records(tmp_path / "b", "train").is_raw)


@pytest.mark.parametrize("encoding", [{}, {"write_mode": "raw"}], ids=["kept", "raw"])
def test_statistics_are_those_of_all_pixels_that_will_be_read(image_folder, tmp_path, encoding):
    pack(listed(image_folder), tmp_path / "out", settings(**encoding), 0)
    reference = pixels_of(open_records(tmp_path / "out", "train"))
    statistics = read_manifest(tmp_path / "out").statistics
    assert np.allclose(statistics.mean, reference.mean(axis=0), rtol=1e-12)
    assert np.allclose(statistics.std, reference.std(axis=0), rtol=1e-10)
    assert statistics.num_samples == 37 and statistics.split == "train"


def test_statistics_of_what_is_encoded_are_those_before_encoding(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path / "jpg", settings(limit_px=60), 0)
    pack(listed(image_folder), tmp_path / "raw", settings(limit_px=60, write_mode="raw"), 0)
    assert read_manifest(tmp_path / "jpg").statistics == read_manifest(tmp_path / "raw").statistics
    stored = pixels_of(open_records(tmp_path / "jpg", "train")).mean(axis=0)
    assert np.abs(stored - read_manifest(tmp_path / "jpg").statistics.mean).max() < 0.5


def pixels_of(records):
    """float64 [pixels, 3] of all samples."""
    pixels = []
    for index in range(len(records)):
        data = records.read(index)
        pixels.append((data if records.is_raw[index] else simplejpeg.decode_jpeg(data, "RGB")).reshape(-1, 3))
    return np.concatenate(pixels).astype(np.float64)


@pytest.mark.parametrize("encoding", [{}, {"write_mode": "raw"}], ids=["kept", "raw"])
def test_of_a_large_set_an_eighth_is_counted(image_folder, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(split_pass, "_COUNTED_FROM", 37)
    pack(listed(image_folder), tmp_path, settings(**encoding), 2)
    statistics = read_manifest(tmp_path).statistics
    assert statistics.num_samples == 5 and "every 8th sample" in statistics.method
    records = open_records(tmp_path, "train")
    chosen = [records.read(index) for index in range(0, 37, 8)]
    if not encoding:
        chosen = [simplejpeg.decode_jpeg(data, "RGB") for data in chosen]
    pixels = np.concatenate([data.reshape(-1, 3) for data in chosen])
    assert np.allclose(statistics.mean, pixels.mean(axis=0), rtol=1e-12)


def test_where_bytes_are_only_walked_a_few_thousand_are_counted():
    full, walked = Encoding(), Encoding(check="structure")
    assert [split_pass.counted_every(num, full) for num in (9_999, 10_000, 1_300_000)] == [1, 8, 8]
    assert [split_pass.counted_every(num, walked) for num in (9_999, 10_000, 1_300_000)] == [1, 8, 520]


def test_raw_pixels_are_all_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(split_pass, "_COUNTED_FROM", 10)
    source = write_image_folder(tmp_path / "in", {"train": {"ant": 20}})
    samples = listed(source)["train"]
    plain = samples.stored
    samples.stored = lambda index: Stored(plain(index).name, "x", 0, 12, (2, 2), bytes(range(index, index + 12)))
    pack({"train": samples}, tmp_path / "out", settings(write_mode="raw"), 0)
    statistics = read_manifest(tmp_path / "out").statistics
    assert statistics.num_samples == 20 and "all samples" in statistics.method


def test_statistics_of_a_trillion_pixels_are_exact():
    histogram = np.zeros((3, 256), np.int64)
    histogram[:, 100] = 10**12
    histogram[:, 101] = 1
    mean, std = channel_statistics(histogram)
    assert mean[0] == 100 + 1 / (10**12 + 1)
    assert std[0] == pytest.approx(1e-6, rel=1e-9)


def test_the_manifest_tells_sizes_counts_and_checksums(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path, settings(*ALL), 0)
    split = read_manifest(tmp_path).splits["train"]
    assert split.samples_per_class == [13, 11, 13] and split.num_samples == 37 and split.num_bad == 0
    for file in (split.samples, *(file for of in split.formats.values() for file in of)):
        told = subprocess.run(["sha256sum", tmp_path / file.name], capture_output=True, text=True, check=True).stdout
        assert told.split()[0] == file.sha256 and (tmp_path / file.name).stat().st_size == file.num_bytes


def test_the_table_says_where_each_sample_came_from(image_folder, tmp_path):
    source = listed(image_folder)["train"]
    pack({"train": source}, tmp_path, settings(), 0)
    table = SampleTable(tmp_path / "train.samples.npz", 37)
    order = table.column("source_index").tolist()
    assert list(table.names()) == [source.stored(index).name for index in order]
    assert table.column("labels").tolist() == source.labels[order].tolist()


# ---- samples that cannot be used


@pytest.fixture
def damaged(tmp_path):
    """60 training images, of which three cannot be used, and six to validate with."""
    source = write_image_folder(tmp_path / "in", {"train": {"ant": 30, "bee": 30}, "val": {"ant": 3, "bee": 3}})
    broken = source / "train" / "bee" / "017.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    (source / "train" / "ant" / "003.jpg").write_bytes(b"")
    (source / "train" / "ant" / "030.png").write_text("not an image")
    return source


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_is_named_and_nothing_takes_its_final_name(damaged, tmp_path, num_workers):
    with pytest.raises(FeedrateError, match=rf"{damaged}/train/\w+/0.*cannot be used \(.*--on-bad skip") as first:
        pack(listed(damaged), tmp_path / "out", settings(), num_workers)
    assert set(files(tmp_path / "out")) == {"packing.partial"}
    with pytest.raises(FeedrateError) as again:
        pack(listed(damaged), tmp_path / "other", settings(), 3 - num_workers)
    assert str(again.value) == str(first.value), "which is named first must not be chance"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_samples_are_left_out_counted_and_listed(damaged, tmp_path, num_workers):
    splits = listed(damaged)
    splits["val"].bad.append(BadSample("bee/gone.jpg", "in/val/bee/gone.jpg", "a link to nowhere"))
    pack(splits, tmp_path, settings(*ALL), num_workers, Rules(skip_bad=True, most_bad=4))
    manifest = read_manifest(tmp_path)
    assert (manifest.splits["train"].num_samples, manifest.splits["train"].num_bad) == (58, 3)
    assert (manifest.splits["val"].num_samples, manifest.splits["val"].num_bad) == (6, 1)
    assert manifest.splits["train"].samples_per_class == [29, 29]
    bad = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert sorted((item["split"], item["name"]) for item in bad) == [
        ("train", "ant/003.jpg"),
        ("train", "ant/030.png"),
        ("train", "bee/017.jpg"),
        ("val", "bee/gone.jpg"),
    ]
    assert {item["name"]: item["reason"] for item in bad}["ant/003.jpg"] == "it is empty"
    records = open_records(tmp_path, "train")
    assert len(records) == 58 and min(records.sizes) > 0


def test_what_was_found_bad_while_listing_any_split_is_told_before_the_first_is_packed(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path, settings(), 0)
    before = files(tmp_path)
    splits = listed(image_folder)
    splits["val"].bad.append(BadSample("bee/gone.jpg", "in/val/bee/gone.jpg", "a link to nowhere"))
    with pytest.raises(FeedrateError, match="in/val/bee/gone.jpg cannot be used"):
        pack(splits, tmp_path, settings("shards"), 0, Rules(overwrite=True))
    assert files(tmp_path) == before


def test_more_bad_samples_than_the_budget_are_too_many_and_are_listed(damaged, tmp_path):
    with pytest.raises(FeedrateError, match="more than 2 bad samples.*--max-bad"):
        pack(listed(damaged), tmp_path / "out", settings(), 2, Rules(skip_bad=True, most_bad=2))
    assert "manifest.json" not in files(tmp_path / "out")
    assert len((tmp_path / "out" / "bad_samples.jsonl").read_text().splitlines()) == 3, "all that were found"
    pack(listed(damaged), tmp_path / "out", settings(), 2, Rules(skip_bad=True, most_bad=3))
    pack(listed(damaged), tmp_path / "straight", settings(), 0, Rules(skip_bad=True, most_bad=9))
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_what_an_earlier_run_skipped_is_not_borne_by_stricter_rules(damaged, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_measured", interrupted)
        patch.setattr(split_pass, "CHECKPOINT_INTERVAL_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            pack(listed(damaged), tmp_path / "out", settings(), 0, Rules(skip_bad=True, most_bad=3))
    with pytest.raises(FeedrateError, match="--on-bad skip"):
        pack(listed(damaged), tmp_path / "out", settings(), 0)


class Unreadable(Stored):
    """A sample whose disk answers with an error as long as there is a file; its name tells which error and file."""

    def read(self):
        number, fault = self.name.split(" ")
        if Path(fault).exists():
            raise OSError(int(number), os.strerror(int(number)), self.path)
        return super().read()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_disk_that_fails_ends_the_pass_and_makes_no_bad_sample(image_folder, tmp_path, number, num_workers):
    fault = tmp_path / "fault"

    def faulty():
        samples = listed(image_folder)["train"]
        plain, path = samples.stored, str(samples.paths[20])
        samples.stored = lambda index: Unreadable(f"{number} {fault}", path) if index == 20 else plain(index)
        return {"train": samples}

    fault.touch()
    lenient = Rules(skip_bad=True, most_bad=99)
    with pytest.raises(FeedrateError, match=f"{os.strerror(number)}.*no fault of the image.*again to go on"):
        pack(faulty(), tmp_path / "out", settings(), num_workers, lenient)
    assert files(tmp_path / "out") == ["packing.partial"]
    fault.unlink()
    pack(faulty(), tmp_path / "out", settings(), num_workers, lenient)
    assert read_manifest(tmp_path / "out").splits["train"].num_bad == 0


@pytest.mark.parametrize("form", ["class folders", "shards"])
def test_a_source_that_goes_away_ends_the_pass_and_a_file_that_does_is_bad(image_folder, tmp_path, monkeypatch, form):
    source = tmp_path / "source"
    if form == "shards":
        pack(listed(image_folder), tmp_path / "packed", settings("shards"), 0)
        source.mkdir()
        for shard in (tmp_path / "packed").glob("*.tar"):
            shard.rename(source / shard.name)
    else:
        shutil.copytree(image_folder, source)
    lenient = Rules(skip_bad=True, most_bad=99)
    splits = open_source("folder", source, SourceOptions(rules=lenient), silent_phase)
    if form == "class folders":
        Path(splits["train"].stored(3).path).unlink()
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(FeedrateError, match="No such file.*the same command again to go on"):
        pack(splits, tmp_path / "out", settings(), 0, lenient)
    (tmp_path / "elsewhere").rename(source)
    pack(splits, tmp_path / "out", settings(), 0, lenient)
    assert read_manifest(tmp_path / "out").splits["train"].num_bad == (form == "class folders")


@pytest.mark.parametrize("form", ALL)
def test_a_split_without_one_good_sample_is_refused(tmp_path, form):
    (tmp_path / "in" / "train" / "ant").mkdir(parents=True)
    (tmp_path / "in" / "train" / "ant" / "1.jpg").write_bytes(b"x")
    with pytest.raises(FeedrateError, match="not one sample of 'train'"):
        pack(listed(tmp_path / "in"), tmp_path / "out", settings(form), 0, Rules(skip_bad=True, most_bad=9))
    assert files(tmp_path / "out") == ["bad_samples.jsonl", "packing.partial"]


# ---- what ends a pass, and going on


@pytest.mark.parametrize("num_done", [0, 1, 5, 12, 13, 17, 20])
@pytest.mark.parametrize(
    "wanted",
    [settings(*ALL, limit_px=60), settings(write_mode="mix"), settings("beton", "shards", seek_points=HAS_KERNEL)],
    ids=["all", "mix", "seek points"],
)
def test_an_interrupted_pass_goes_on_where_it_stopped_to_the_same_bytes(
    image_folder, tmp_path, monkeypatch, wanted, num_done
):
    pack(listed(image_folder), tmp_path / "straight", wanted, 0)
    opened = []
    plain = Stored.read

    def counting(stored):
        opened.append(stored.name)
        return plain(stored)

    def stop_after(split):
        @contextmanager
        def phase(label, total, num_before=0):
            yield advance

        def advance(num_samples, num_bytes):
            nonlocal num_tasks
            num_tasks += 1
            if num_tasks > num_done:
                raise KeyboardInterrupt

        num_tasks = 0
        return phase

    monkeypatch.setattr(packing, "estimate", lambda *arguments: {})
    with pytest.raises(KeyboardInterrupt):
        pack(listed(image_folder), tmp_path / "out", wanted, 0, phase=stop_after(num_done))
    assert files(tmp_path / "out") == ["packing.partial"]
    monkeypatch.setattr(Stored, "read", counting)
    pack(listed(image_folder), tmp_path / "out", wanted, 0)
    of_tasks = [3] * 12 + [1] + [3] * 7 + [2]  # samples of each task: 37 to train with, 23 to validate
    assert len(opened) == 60 - sum(of_tasks[: num_done + 1]), "finished work was done again"
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_pass_that_failed_while_hashing_or_publishing_is_only_finished(image_folder, tmp_path, monkeypatch):
    pack(listed(image_folder), tmp_path / "straight", settings(*ALL), 0)
    for name, module in (("_measured", packing), ("write_manifest", packing)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                pack(listed(image_folder), tmp_path / name, settings(*ALL), 0)
        pack(listed(image_folder), tmp_path / name, settings(*ALL), 0)
        assert contents(tmp_path / name) == contents(tmp_path / "straight")


def test_an_interruption_while_files_are_hashed_is_answered_within_a_moment(image_folder, tmp_path, monkeypatch):
    num_hashed = 0

    class Slow:
        def update(self, block):
            nonlocal num_hashed
            num_hashed += len(block)
            time.sleep(0.02)

        def hexdigest(self):
            return "0" * 64

    @contextmanager
    def phase(label, total, num_before=0):
        yield interrupted if label == "checksums" else lambda num_samples, num_bytes: None

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "_BLOCK_BYTES", 512)
        patch.setattr(checksums, "hashlib", SimpleNamespace(sha256=Slow))
        with pytest.raises(KeyboardInterrupt):
            pack(listed(image_folder), tmp_path, settings(), 0, phase=phase)
    written = sum(path.stat().st_size for path in (tmp_path / "packing.partial").glob("*.beton"))
    assert 0 < num_hashed < written // 2
    pack(listed(image_folder), tmp_path, settings(), 0)
    assert open_records(tmp_path, "train").labels.size == 37


@pytest.mark.parametrize("num_moved", range(13))
def test_a_pass_killed_between_two_final_names_is_finished_by_the_next(damaged, tmp_path, monkeypatch, num_moved):
    lenient = Rules(skip_bad=True, most_bad=3)
    pack(listed(damaged), tmp_path / "straight", settings(*ALL), 0, lenient)
    replaced = []

    class Os:
        def __getattr__(self, name):
            return getattr(os, name)

        def replace(self, old, new):
            if len(replaced) == num_moved:
                raise KeyboardInterrupt
            replaced.append(new)
            os.replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(out_folder, "os", Os())
        if num_moved < 12:
            with pytest.raises(KeyboardInterrupt):
                pack(listed(damaged), tmp_path / "out", settings(*ALL), 0, lenient)
            assert "manifest.json" not in files(tmp_path / "out")
        else:
            pack(listed(damaged), tmp_path / "out", settings(*ALL), 0, lenient)
    pack(listed(damaged), tmp_path / "out", settings(*ALL), 0, lenient)
    assert "bad_samples.jsonl" in files(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_journal_cut_or_damaged_anywhere_loses_only_its_last_records(image_folder, tmp_path, monkeypatch):
    pack(listed(image_folder), tmp_path / "straight", settings(), 0)
    monkeypatch.setattr(split_pass, "CHECKPOINT_INTERVAL_S", 0.0)
    monkeypatch.setattr(packing, "_measured", interrupted)
    for cut_bytes in (1, 100, 7000, 20_000, 10**9):
        out = tmp_path / str(cut_bytes)
        with pytest.raises(KeyboardInterrupt):
            pack(listed(image_folder), out, settings(), 0)
        journal = out / "packing.partial" / "train.journal"
        data = journal.read_bytes()
        journal.write_bytes(data[: max(0, len(data) - cut_bytes)])
        if cut_bytes == 100:
            journal.write_bytes(data[:-100] + bytes(100))
    monkeypatch.undo()
    monkeypatch.setattr(split_pass, "_TASK_SAMPLES", 3)
    for cut_bytes in (1, 100, 7000, 20_000, 10**9):
        pack(listed(image_folder), tmp_path / str(cut_bytes), settings(), 0)
        assert contents(tmp_path / str(cut_bytes)) == contents(tmp_path / "straight")


def test_an_unfinished_pass_is_not_continued_with_other_settings_or_another_source(image_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_measured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(listed(image_folder), tmp_path, settings(limit_px=60), 0)
    with pytest.raises(FeedrateError, match="begun otherwise \\(limit_px was 60 and is 50\\).*--overwrite"):
        pack(listed(image_folder), tmp_path, settings(limit_px=50), 0)
    splits = listed(image_folder)
    splits["val"].num_bytes += 1
    with pytest.raises(
        FeedrateError, match="begun otherwise \\(the images of 'val' have changed: files, sizes, times,"
    ):
        pack(splits, tmp_path, settings(limit_px=60), 0)
    pack(listed(image_folder), tmp_path, settings(limit_px=50), 0, Rules(overwrite=True))
    assert max(open_records(tmp_path, "train").widths) == 50 and "packing.partial" not in files(tmp_path)


def _refused(splits, out, wanted):
    with pytest.raises(FeedrateError) as refused:
        pack(splits, out, wanted, 0)
    assert str(refused.value).endswith("give another --out, or --overwrite to replace what it holds")
    return str(refused.value)


def test_a_finished_set_that_was_packed_otherwise_is_refused_with_what_differs(image_folder, tmp_path):
    splits = listed(image_folder)
    pack(splits, tmp_path, settings("beton", "raw"), 0)
    said = _refused(splits, tmp_path, settings("beton", limit_px=50))
    assert "packed otherwise (limit_px was not set and is 50; formats was beton, raw and is beton)" in said
    splits["val"].num_bytes += 1
    said = _refused(splits, tmp_path, settings("beton", "raw"))
    assert "packed otherwise (the images of 'val' have changed" in said and "'train'" not in said
    assert "packed otherwise (there is no 'val' any more)" in _refused(
        {"train": splits["train"]}, tmp_path, settings("beton", "raw")
    )
    splits = listed(image_folder)
    for samples in splits.values():
        samples.class_names = tuple(f"a {name}" for name in samples.classes)
    assert "packed otherwise (the classes are others)" in _refused(splits, tmp_path, settings("beton", "raw"))


def test_a_finished_set_that_is_damaged_or_was_described_by_others_is_refused_as_such(image_folder, tmp_path):
    splits = listed(image_folder)
    pack(splits, tmp_path, settings(), 0)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"source": {}}))
    assert "of which is not known how it was packed" in _refused(splits, tmp_path, settings())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 3}))
    assert "holds a packed set, which another version of this has packed: give" in _refused(
        splits, tmp_path, settings()
    )
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "val.beton").unlink()
    said = _refused(splits, tmp_path, settings())
    assert "which is not whole" in said and "val.beton is named in manifest.json but missing" in said


def test_the_same_command_again_finds_nothing_to_do(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path, settings(), 0)
    before = (tmp_path / "train.beton").stat().st_mtime_ns
    assert pack(listed(image_folder), tmp_path, settings(), 0).was_there
    assert (tmp_path / "train.beton").stat().st_mtime_ns == before


def test_a_killed_worker_is_an_error_that_names_the_image(image_folder, tmp_path):
    splits = trapped(image_folder, "die")
    with pytest.raises(FeedrateError, match=f"SIGKILL.*{splits['train'].paths[20]}.*the same command goes on"):
        pack(splits, tmp_path, settings(seed=None), 2)
    assert files(tmp_path) == ["packing.partial"]


def test_a_stuck_worker_is_an_error_that_names_the_image(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_LOOK_INTERVAL_S", 0.1)
    monkeypatch.setattr(crew, "STUCK_S", 15.0)  # a busy machine may well hold a worker up for some
    splits = trapped(image_folder, "stop")
    with pytest.raises(FeedrateError, match=f"stuck at {splits['train'].paths[20]}"):
        pack(splits, tmp_path, settings(seed=None), 2)


def test_a_bug_in_a_worker_keeps_its_type_and_tells_its_place(image_folder, tmp_path):
    with pytest.raises(RuntimeError, match="a bug") as caught:
        pack(trapped(image_folder, "raise"), tmp_path, settings(), 2)
    assert "test_packing.py" in caught.value.__notes__[0]


def test_a_packed_folder_is_not_overwritten_unless_told(image_folder, tmp_path):
    splits = listed(image_folder)
    pack(splits, tmp_path, settings(*ALL), 0)
    before = contents(tmp_path)
    with pytest.raises(FeedrateError, match="--overwrite"):
        pack(splits, tmp_path, settings(write_mode="raw"), 0)
    assert contents(tmp_path) == before
    (tmp_path / "mine.txt").write_text("not ours")
    pack({"train": splits["train"]}, tmp_path, settings(write_mode="raw"), 0, Rules(overwrite=True))
    assert open_records(tmp_path, "train").is_raw.all()
    assert files(tmp_path) == ["manifest.json", "mine.txt", "train.beton", "train.samples.npz"]


def test_an_interrupted_overwrite_leaves_no_manifest_of_other_files(image_folder, tmp_path, monkeypatch):
    splits = listed(image_folder)
    pack(splits, tmp_path, settings(), 0)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_measured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(splits, tmp_path, settings(write_mode="raw"), 0, Rules(overwrite=True))
    assert files(tmp_path) == ["packing.partial"]
    pack(splits, tmp_path, settings(write_mode="raw"), 0, Rules(overwrite=True))
    assert open_records(tmp_path, "train").is_raw.all()


def test_two_passes_into_one_folder_do_not_mix(image_folder, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(FeedrateError, match="another process"):
        pack(listed(image_folder), tmp_path, settings(), 0)
    os.close(descriptor)


def test_an_out_that_is_a_file_is_refused(image_folder, tmp_path):
    Path(tmp_path / "out").write_text("")
    with pytest.raises(FeedrateError, match="is a file"):
        pack(listed(image_folder), tmp_path / "out", settings(), 0)


# ---- disks


def test_a_disk_that_surely_is_too_small_is_refused_beforehand(image_folder, tmp_path, monkeypatch):
    usage = packing.shutil.disk_usage(tmp_path)
    told = []
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    with pytest.raises(FeedrateError, match=r"needs about [0-9.]+ MB and its disk has 20\.0 kB free"):
        pack(listed(image_folder), tmp_path, settings(write_mode="raw"), 0, tell=told.append)
    assert not list((tmp_path / "packing.partial").glob("*.beton"))
    expected = sum(3 * int(np.dot(*sizes)) for sizes in sizes_of(image_folder / "train"))
    assert told[0]["train"].num_bytes == pytest.approx(expected, rel=1e-9), "all samples were probed"


def sizes_of(place):
    for path in place.glob("*/*"):
        yield simplejpeg.decode_jpeg_header(path.read_bytes())[:2]


@pytest.fixture
def tiny_disk(tmp_path):
    """A real disk whose size (bytes) the test gives; without the right to mount, a reason to skip."""
    place = tmp_path / "tiny"
    place.mkdir()

    def sized(num_bytes):
        options = f"size={num_bytes}"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        if os.path.ismount(place):
            mount = ["mount", "-o", f"remount,{options}", place]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_disk_that_fills_up_anywhere_is_one_sentence_and_with_more_room_it_goes_on(
    image_folder, tmp_path, tiny_disk, monkeypatch, num_workers
):
    monkeypatch.setattr(packing, "_check_space", lambda out, needed: None)
    wanted = settings(*ALL, write_mode="raw")
    pack(listed(image_folder), tmp_path / "straight", wanted, 0)
    needed = sum(path.stat().st_blocks * 512 for path in (tmp_path / "straight").iterdir())
    for num_bytes in range(16_384, needed * 9 // 10, needed // 9):
        out = tiny_disk(num_bytes) / "out"
        with pytest.raises(FeedrateError, match="B free.*the same command again") as caught:
            pack(listed(image_folder), out, wanted, num_workers)
        assert caught.value.__cause__.errno == errno.ENOSPC
        assert files(out) in ([], ["packing.partial"])
    out = tiny_disk(2 * needed + (1 << 20)) / "out"
    pack(listed(image_folder), out, wanted, num_workers)
    assert contents(out) == contents(tmp_path / "straight")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("step", ["mkdir", "atomic_file"])
def test_a_folder_that_may_not_be_written_to_is_one_sentence(image_folder, tmp_path, monkeypatch, number, step):
    """As the super-user all may be written, so the system's answer is made up."""

    def refuse(*arguments, **named):
        raise OSError(number, os.strerror(number), str(tmp_path))

    def mkdir(path, *arguments, **named):
        (refuse if path.name == "packing.partial" else made)(path, *arguments, **named)

    (tmp_path / "out").mkdir()
    made = Path.mkdir
    monkeypatch.setattr(*((Path, "mkdir", mkdir) if step == "mkdir" else (out_folder, step, refuse)))
    with pytest.raises(FeedrateError, match=f"out cannot be written to .{os.strerror(number)}.: give another --out"):
        pack(listed(image_folder), tmp_path / "out", settings(), 0)


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(image_folder, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(packing, "_measured", fail)
    with pytest.raises(OSError, match="broken disk"):
        pack(listed(image_folder), tmp_path, settings(), 0)
