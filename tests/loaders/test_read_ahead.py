"""Blocks are in memory before they are used; the whole set stays there where that is asked for."""

import gc
import mmap
import os
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from cached_pages import forget, in_memory
from packed_by_hand import FORMATS, samples_of, write_packed

from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.errors import FeedrateError
from loaders.mapped_file import MappedFile, MappedRecords
from loaders.memory_limit import available_memory_bytes
from loaders.orders import BlockShuffled, Sequential, Shuffled
from loaders.page_cache import WholeSet
from loaders.plan import Plan, Shard, View
from loaders.read_ahead import _Reader, read_ahead, stored_ranges
from loaders.records import open_records
from loaders.synthetic_records import SyntheticRecords

PAGE = mmap.PAGESIZE


class PlainRecords(MappedRecords):
    """`num_samples` samples of `size` bytes in one file of noise, one after the other."""

    def __init__(self, path, num_samples: int, size: int) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(np.random.default_rng(0).bytes(num_samples * size))
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        self.labels = np.zeros(num_samples, np.int64)
        self.positions = np.arange(num_samples, dtype=np.int64) * size
        self.sizes = np.full(num_samples, size, dtype=np.int64)
        self.is_raw = np.ones(num_samples, np.bool_)
        self._file = MappedFile(path, num_samples * size)


def plan_of(num_samples: int, order) -> Plan:
    return Plan(np.full(num_samples, 8), np.full(num_samples, 8), order, View(CenterCrop(), 8))


def wait_until(is_so) -> bool:
    limit = time.monotonic() + 120
    while not is_so() and time.monotonic() < limit:
        time.sleep(0.005)
    return is_so()


# where samples lie


@pytest.mark.parametrize("format_name", FORMATS)
def test_ranges_hold_the_bytes_of_the_samples_in_every_packed_format(image_folder, tmp_path, format_name):
    records = open_records(
        write_packed(tmp_path, {"train": samples_of(image_folder, "train")}, (format_name,)), "train"
    )
    ids = np.array([3, 4, 5, 20, 36])
    ranges = list(stored_ranges(records, ids))
    for index in ids.tolist():
        place = next(records.places(np.array([index])))
        inside = [
            (file, start)
            for file, start, stop in ranges
            if file is place[0] and start <= place[1][0] and place[1][0] + place[2][0] <= stop
        ]
        assert len(inside) == 1
        assert bytes(inside[0][0].view(int(place[1][0]), int(place[2][0]))) == bytes(records.read(index))
    records.close()
    with pytest.raises(FeedrateError, match="closed"):
        list(stored_ranges(records, ids))


def test_neighbours_become_one_range_and_a_large_gap_begins_another(tmp_path):
    records = PlainRecords(tmp_path / "file", 100, 10_000)
    ranges = [(start, stop) for _, start, stop in stored_ranges(records, np.array([9, 1, 2, 3, 5, 50]))]
    assert ranges == [(10_000, 100_000), (500_000, 510_000)]
    records.sizes[3] = 200_000  # it reaches over those after it
    ranges = [(start, stop) for _, start, stop in stored_ranges(records, np.array([9, 1, 2, 3, 5, 30]))]
    assert ranges == [(10_000, 230_000), (300_000, 310_000)]
    records.positions[5] = records.positions[1]  # two samples share their bytes
    assert [r[1:] for r in stored_ranges(records, np.array([1, 5]))] == [(10_000, 20_000)]


# reading ahead


def test_the_window_in_use_and_the_next_are_read_and_no_more(tmp_path):
    size, num_samples = 4 * PAGE, 2048
    records = PlainRecords(tmp_path / "file", num_samples, size)
    forget(records.path, num_samples * size)
    plan = plan_of(num_samples, BlockShuffled(64, 64, 2, lanes=4))
    assert [plan.window(batch) for batch in (0, 8, 16)] == [(0, 8), (8, 16), (16, 24)]

    def share(first: int, stop: int) -> float:
        pages = in_memory(records.path, num_samples * size).reshape(num_samples, -1)
        return float(pages[plan.ids_in(1, range(first, stop))].mean())

    used = []
    batches = read_ahead((number for number in range(2, 32)), records, plan, Shard(), (1, 2), 3)
    for number in batches:
        used.append(number)
        if number == 2:
            assert wait_until(lambda: share(2, 16) > 0.99)
            assert share(16, 32) < 0.1
        if number == 8:
            assert wait_until(lambda: share(16, 24) > 0.99)
    assert used == list(range(2, 32))


def test_in_an_order_without_blocks_some_batches_are_read_ahead(tmp_path):
    size, num_samples = 4 * PAGE, 2048
    records, plan = PlainRecords(tmp_path / "file", num_samples, size), plan_of(num_samples, Shuffled(64))
    forget(records.path, num_samples * size)
    batches = read_ahead((number for number in range(32)), records, plan, Shard(), (0, 0), 2)
    next(batches)
    pages = in_memory(records.path, num_samples * size).reshape(num_samples, -1)
    assert wait_until(
        lambda: in_memory(records.path, num_samples * size).reshape(num_samples, -1)[plan.ids_in(0, range(12))].all()
    )
    assert pages.mean() < 0.9
    batches.close()


@pytest.mark.parametrize("order", [Shuffled(64), BlockShuffled(64, 64, 2, lanes=4)])
@pytest.mark.parametrize("start", [0, 3, 7, 8, 30, 31, 32])
@pytest.mark.parametrize("num_begun", [1, 4, 11, 40])
def test_each_batch_is_asked_for_once_in_order_and_well_before_it_is_begun(tmp_path, order, start, num_begun):
    reader = _Reader(PlainRecords(tmp_path / "file", 2048, 16), plan_of(2048, order), Shard(), 0)
    schedule = list(reader.schedule(start, num_begun))
    asked_at = {batch: at for at, batches in schedule for batch in batches}
    assert [batch for _, batches in schedule for batch in batches] == list(range(start, 32))
    assert [at for at, _ in schedule] == sorted(at for at, _ in schedule)
    for batch, at in asked_at.items():
        assert at == start or at <= batch - 8 or at < batch - num_begun


def test_a_rank_reads_its_own_lanes(tmp_path):
    plan, asked = plan_of(2048, BlockShuffled(64, 64, 2, lanes=4)), []

    class Spy(PlainRecords):
        def places(self, ids):
            asked.append(ids)
            yield from super().places(ids)

    with _Reader(Spy(tmp_path / "file", 2048, 16), plan, Shard(1, 2), 3) as reader:
        reader.want(range(16))
        reader.want(range(16, 32))
        assert wait_until(lambda: len(asked) == 2)
    own = np.concatenate([plan.rows(3, batch, Shard(1, 2)).ids for batch in range(32)])
    assert np.array_equal(np.sort(np.concatenate(asked)), np.sort(own))


def test_a_folder_of_images_is_left_alone_and_what_is_in_memory_is_not_read_again(folder, tmp_path, monkeypatch):
    batches, plan = (number for number in range(32)), plan_of(2048, BlockShuffled(64, 64, 2, lanes=4))
    assert read_ahead(batches, folder, plan, Shard(), (0, 0), 3) is batches
    records, asked = PlainRecords(tmp_path / "file", 2048, 2 * PAGE), []
    monkeypatch.setattr(MappedFile, "advise", lambda *arguments: asked.append(arguments))
    for index in range(2048):
        records.read(index).max()
    assert list(read_ahead(batches, records, plan, Shard(), (0, 0), 3)) == list(range(32)) and not asked
    records = PlainRecords(records.path, 2048, 2 * PAGE)  # while its pages are mapped they cannot be forgotten
    forget(records.path, 2048 * 2 * PAGE)
    assert not records._file.has_in_memory([0])
    # some kernels begin to read the very page they are asked about
    assert not in_memory(records.path, 2048 * 2 * PAGE)[1:].any(), "only asked"
    again = (number for number in range(32))
    assert list(read_ahead(again, records, plan, Shard(), (0, 0), 3)) == list(range(32)) and asked


def test_a_file_that_is_gone_stops_nobody(tmp_path):
    records, plan = PlainRecords(tmp_path / "file", 400, 16), plan_of(400, Shuffled(8))
    records.path.unlink()
    assert list(read_ahead((number for number in range(50)), records, plan, Shard(), (0, 0), 3)) == list(range(50))
    with _Reader(records, plan, Shard(), 0) as reader:
        reader.want(range(3))
        reader.wait_for_first()


@pytest.mark.parametrize("leave", ["exhaust", "close", "drop", "fail"])
def test_no_thread_is_left_however_an_epoch_ends_and_the_batches_are_closed(tmp_path, leave, monkeypatch):
    monkeypatch.setattr(MappedFile, "has_in_memory", lambda *_: False)
    plan, records = plan_of(400, BlockShuffled(8, 4, 2, 2)), PlainRecords(tmp_path / "file", 400, 16)
    closed = []

    def made():
        try:
            yield from range(20)
            if leave == "fail":
                raise FeedrateError("bad")
        finally:
            closed.append(True)

    before = threading.active_count()
    batches = read_ahead(made(), records, plan, Shard(), (0, 0), 3)
    assert next(batches) == 0 and threading.active_count() == before + 1
    if leave == "exhaust":
        assert list(batches) == list(range(1, 20))
    elif leave == "close":
        batches.close()
    elif leave == "drop":
        del batches
    else:
        with pytest.raises(FeedrateError, match="bad"):
            list(batches)
    assert closed and threading.active_count() == before


def test_a_batch_of_nothing_but_padding_has_no_bytes_to_read(tmp_path, monkeypatch):
    """In evaluation the last batches of some ranks are."""
    monkeypatch.setattr(MappedFile, "has_in_memory", lambda *_: False)
    records, failures = PlainRecords(tmp_path / "file", 40, 16), []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    plan = plan_of(40, Sequential(4))
    for rank in range(4):
        shard = Shard(rank, 4)
        assert list(read_ahead((number for number in range(3)), records, plan, shard, (0, 0), 1)) == [0, 1, 2]
    assert not failures and not list(stored_ranges(records, np.zeros(0, np.int64)))


def test_the_collector_may_end_a_forgotten_epoch_in_the_thread_that_reads(tmp_path, monkeypatch):
    forgotten, problems, advised = threading.Event(), [], []

    def advise(*_):
        advised.append(1)
        if len(advised) > 2 and forgotten.wait(60):  # the two that the first batch needs come at once
            gc.collect()
        return True

    monkeypatch.setattr(MappedFile, "has_in_memory", lambda *_: False)
    monkeypatch.setattr(MappedFile, "advise", advise)
    monkeypatch.setattr(sys, "unraisablehook", problems.append)
    records, plan = PlainRecords(tmp_path / "file", 400, 16), plan_of(400, BlockShuffled(8, 4, 2, 2))
    before = threading.active_count()
    gc.disable()
    try:
        batches = read_ahead((number for number in range(50)), records, plan, Shard(), (0, 0), 3)
        next(batches)
        cycle = [batches]
        cycle.append(cycle)
        del batches, cycle
        forgotten.set()
        assert wait_until(lambda: threading.active_count() == before)
    finally:
        gc.enable()
    assert not problems


def test_a_loader_gives_the_order_by_blocks_from_any_batch_on(packed_once, monkeypatch):
    monkeypatch.setattr(MappedFile, "has_in_memory", lambda *_: False)
    records = open_records(packed_once, "train")
    plan = Plan(records.widths, records.heights, BlockShuffled(8, 3, 2, 4), View(CenterCrop(), 32))
    before = threading.active_count()
    loader = open_loader("turbo", records, plan, LoaderOptions(num_workers=2))
    try:
        for start in (0, 2, 4):
            ids = [batch.ids.tolist() for batch in loader.epoch(1, start)]
            assert ids == [plan.rows(1, batch).ids.tolist() for batch in range(start, 4)]
    finally:
        loader.close()
        records.close()
    assert threading.active_count() == before


# all in memory


def test_the_ranks_of_a_machine_bring_in_the_whole_set_together(tmp_path):
    size, num_samples = 3 * PAGE + 17, 500
    records = PlainRecords(tmp_path / "file", num_samples, size)
    forget(records.path, num_samples * size)
    said: list[str] = []
    whole = WholeSet([records])
    assert whole.num_bytes == num_samples * size and whole.refusal() is None
    whole.bring_in(0, 2, said.append)
    pages = in_memory(records.path, num_samples * size)
    assert pages[: len(pages) // 2].all(), "the system may read on, but not less"
    whole.bring_in(1, 2, said.append)
    assert in_memory(records.path, num_samples * size).all()
    assert any("100 %" in line for line in said)
    for num_parts in (1, 3, 7):  # together the parts are the whole, each once
        parts = [
            (start, stop)
            for part in range(num_parts)
            for _, start, stop in whole._pieces(*(whole.num_bytes * n // num_parts for n in (part, part + 1)))
        ]
        assert parts[0][0] == 0 and parts[-1][1] == num_samples * size
        assert all(one[1] == other[0] for one, other in pairwise(parts))


def test_the_limit_of_locked_memory_is_said(tmp_path, monkeypatch):
    records, said = PlainRecords(tmp_path / "file", 10, 1000), []
    monkeypatch.setattr(MappedFile, "lock", lambda *_: False)
    WholeSet([records]).bring_in(0, 1, said.append)
    assert "0.0 of 0.0 GB are locked" in said[-1] and "ulimit -l" in said[-1]


def test_what_does_not_fit_and_a_folder_of_images_are_refused_in_one_sentence(tmp_path, folder, image_folder):
    whole = WholeSet([PlainRecords(tmp_path / "file", 10, 100_000)])
    assert whole.refusal(1_200_000) is None
    refusal = whole.refusal(1_100_000)
    assert refusal is not None and "0.0 GB" in refusal and "use 'system'" in refusal and "\n" not in refusal
    with pytest.raises(FeedrateError, match="needs a packed set"):
        WholeSet([folder])
    theirs = SyntheticRecords(10, 3, 8, 8)
    assert WholeSet([theirs]).num_bytes == 0  # in memory anyway, as they say
    theirs.is_in_memory = False  # raw, and for all that is known in files
    with pytest.raises(FeedrateError, match="synthetic picture 0 is no part of one"):
        WholeSet([theirs])


def test_memory_is_what_the_machine_and_every_group_above_grant(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    assert available_memory_bytes(proc, groups) is None
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\nHugePages_Total: 0\n")
    assert available_memory_bytes(proc, groups) == 5000 * 1024
    (proc / "self/cgroup").write_text("4:memory:/jobs/mine\n1:cpu:/\n0::/slice/own\n")
    v1, v2 = groups / "memory/jobs", groups / "slice/own"
    for group in (v1, v2):
        group.mkdir(parents=True)
    assert available_memory_bytes(proc, groups) == 5000 * 1024
    (v1 / "memory.limit_in_bytes").write_text("4000000\n")
    (v1 / "memory.usage_in_bytes").write_text("3000000\n")
    (v1 / "memory.stat").write_text("total_inactive_file 500000\ntotal_active_file 1000\n")
    assert available_memory_bytes(proc, groups) == 1_501_000
    (v2 / "memory.max").write_text("max\n")
    (v2 / "memory.current").write_text("7\n")
    assert available_memory_bytes(proc, groups) == 1_501_000
    (v2.parent / "memory.max").write_text("1000\n")
    (v2.parent / "memory.current").write_text("400\n")
    (v2.parent / "memory.stat").write_text("inactive_file 100\nactive_file 50\n")
    assert available_memory_bytes(proc, groups) == 750
    assert (available_memory_bytes() or 0) > 0
