"""The same batches in every turn: warm ones from memory, cold ones whose bytes have left it."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import python
from pictures import write_image_folder
from PIL import Image
from resident_share import resident_share
from short_runs import ONE_RANK, short_config

from engine.data import loader_options, plan_of
from engine.profiler import feeds
from engine.profiler.feeds import RealFeed, Source, on_the_device
from engine.profiler.stored_batches import StoredBatches
from loaders.choose import open_loader
from loaders.page_eviction import bring_in, stored_bytes
from loaders.plan import Shard
from loaders.read_ahead import _Reader
from loaders.records import open_records
from loaders.stage_times import Delay
from loaders.turbo_loader import TurboLoader


@pytest.fixture
def opened(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    records = open_records(image_folder, "train")
    plan = plan_of(records, config)
    stored = StoredBatches(records, plan, ONE_RANK)
    feed = RealFeed(Source("turbo", records, plan, loader_options(config.data, ONE_RANK)), stored)
    yield records, plan, stored, feed
    feed.close()
    records.close()


def ids_of(batches):
    return [batch.ids.tolist() for batch in batches]


def test_warm_turns_see_the_first_batches_again_and_again_whatever_the_workers(opened):
    _, plan, _, feed = opened
    first = [plan.rows(0, number).ids.tolist() for number in range(5)]
    assert ids_of(feed.warm(2, 3)) == ids_of(feed.warm(1, 3)) == first[:3]
    assert feed.workers == 1 and feed.stage_times.num_writers == 2
    assert ids_of(feed.warm(2, 12)) == [*first, *first, *first[:2]]  # an epoch has 5
    assert len(feed.first_batch_s) == 3  # of the newest turn's epochs
    ids_of(feed.warm(2, 1))
    assert len(feed.first_batch_s) == 1


def test_cold_turns_see_the_last_batches_whose_bytes_had_left_memory(opened, monkeypatch):
    records, plan, stored, feed = opened
    ids_of(feed.warm(2, 5))
    wanted = stored_bytes(records, np.concatenate([plan.rows(0, number).ids for number in (3, 4)]))
    before = resident_share(wanted)
    seen = []
    really_open = feed.open

    def open_and_look(workers, device=None):
        seen.append(resident_share(wanted))
        really_open(workers, device)

    monkeypatch.setattr(feed, "open", open_and_look)
    assert ids_of(feed.cold(2, 2)) == [plan.rows(0, number).ids.tolist() for number in (3, 4)]
    assert before == 1
    assert seen == pytest.approx([1 - stored.gone_shares[0]], abs=0.01)


def test_a_batch_of_a_file_that_was_just_packed_leaves_memory_as_well(tmp_path):
    """The page cache then holds it in large pieces, each with samples of other batches."""
    images = write_image_folder(tmp_path / "images", {"train": {"ant": 80, "bee": 80}, "val": {"ant": 1, "bee": 1}})
    for path in sorted(images.rglob("*.jpg")):
        Image.new("RGB", (256, 256)).save(path)
    command = ["tools/convert.py", "folder", "--source", str(images), "--out", str(tmp_path / "packed")]
    assert python(*command, "--write-mode", "raw").returncode == 0
    for path in (tmp_path / "packed").iterdir():  # what is not on the disk yet cannot be dropped
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    with closing(open_records(tmp_path / "packed", "train")) as records:
        config = short_config(tmp_path / "packed", tmp_path)
        blocks = replace(config.data, batch_size=8, order="block", block_mib=0.75, blocks_mixed=2, block_lanes=4)
        in_blocks = replace(config, data=blocks)
        stored = StoredBatches(records, plan_of(records, config), ONE_RANK)
        whole = stored_bytes(records, np.arange(len(records)))
        assert whole.num_bytes == 160 * 256 * 256 * 3
        bring_in(whole)
        for plan in (plan_of(records, config), plan_of(records, in_blocks)):
            asked = [len(batches) for _, batches in _Reader(records, plan, Shard(), 0).schedule(0, 4)]
            assert StoredBatches(records, plan, ONE_RANK).read_together(num_ahead=3) == asked[-2] > 1, asked
        stored.drop(range(3, 4))
    if stored.gone_shares == []:
        pytest.skip(stored.remarks()[0])
    assert stored.gone_shares[0] > 0.9


def test_after_a_cold_turn_a_warm_one_finds_its_bytes_in_memory_again(opened):
    records, plan, _, feed = opened
    ids_of(feed.cold(2, 5))
    wanted = stored_bytes(records, plan.rows(0, 0).ids)
    batches = feed.warm(2, 1)
    next(batches)
    assert resident_share(wanted) == 1
    batches.close()


def test_of_a_folder_of_images_each_is_read_when_it_is_needed(opened):
    _, _, stored, _ = opened
    assert stored.read_together(num_ahead=3) == 1


def test_no_more_is_kept_in_memory_than_there_is_room_for(opened):
    records, plan, stored, _ = opened
    stored._room_bytes = 2.5 * stored_bytes(records, plan.rows(0, 0).ids).num_bytes
    assert stored.keep(5) == 2


def test_the_sets_bytes_are_those_of_its_files(opened):
    records, _, stored, _ = opened
    assert stored.set_bytes == sum(Path(records.where(index)).stat().st_size for index in range(len(records)))


def test_of_a_chosen_part_the_bytes_are_those_of_its_files(opened, image_folder, tmp_path):
    records, _, _, _ = opened
    config = short_config(image_folder, tmp_path)
    part = plan_of(records, replace(config, data=replace(config.data, subset=0.3, classes=records.classes[:1])))
    ids = part.sampling.pool
    assert 0 < len(ids) == part.num_chosen < 0.5 * len(records)
    wanted = sum(Path(records.where(index)).stat().st_size for index in ids)
    assert StoredBatches(records, part, ONE_RANK).set_bytes == wanted


ELSEWHERE = torch.device("meta")  # a device with no pixels: batches are copied there as to any that is no CPU


def feed_to(device, images, folder, loader="turbo", **data):
    config = short_config(images, folder)
    config = replace(config, data=replace(config.data, **data))
    records = open_records(images, "train")
    plan, ranks = plan_of(records, config), replace(ONE_RANK, device=device)
    source = Source(loader, records, plan, loader_options(config.data, ranks))
    return RealFeed(source, StoredBatches(records, plan, ranks))


@pytest.mark.parametrize("loader", ["turbo", "torchvision"])
def test_a_loader_is_measured_alone_without_copying_its_batches_to_the_device(loader, image_folder, tmp_path):
    with closing(feed_to(ELSEWHERE, image_folder, tmp_path, loader)) as feed:
        assert feed.not_fed == "" and feed.alone_on.type == "cpu"
        for stream in (feed.warm, feed.cold):
            before = feed.stage_times.read()["copy"].count
            assert [batch.images.device.type for batch in stream(2, 2, device=feed.alone_on)] == ["cpu", "cpu"]
            assert feed.stage_times.read()["copy"].count == before
            # the loop's batches, and as many other workers', go where they always went
            assert [batch.images.device.type for batch in stream(2, 2)] == ["meta", "meta"]
            assert feed.stage_times.read()["copy"].count == before + 2 * 7
        assert [batch.images.device.type for batch in feed.warm(1, 1, device=feed.alone_on)] == ["cpu"]


def test_what_was_planted_in_a_loader_stays_when_it_is_opened_for_the_other_device(image_folder, tmp_path):
    with closing(feed_to(ELSEWHERE, image_folder, tmp_path)) as feed:
        feed.stage_times.delay("decode", Delay("sleep", 0.003))
        for device in (feed.alone_on, None):
            before = feed.stage_times.read()["decode"]
            list(feed.warm(2, 2, device=device))
            taken = feed.stage_times.read()["decode"].since(before)
            assert taken.count >= 14 and taken.wall_s / taken.count > 0.003


def test_a_loader_that_pins_its_batches_on_their_way_pins_them_alone_too(image_folder, tmp_path, monkeypatch):
    """It is part of what the loader can deliver, and a step that is fed is given page-locked ones."""
    locked = []

    def page_locked_like(images):
        locked.append(torch.empty_like(images))
        return locked[-1]

    monkeypatch.setattr(feeds, "_page_locked_like", page_locked_like)
    with closing(feed_to(ELSEWHERE, image_folder, tmp_path)) as feed:
        expected = [batch.images.clone() for batch in feed.warm(2, 3, device=feed.alone_on)]
        assert locked == []
        feed._pins = True  # as a loader is seen to do on CUDA
        taken = [(batch.images.data_ptr(), batch.images.clone()) for batch in feed.warm(2, 3, device=feed.alone_on)]
        assert {address for address, _ in taken} == {locked[0].data_ptr()} and len(locked) == 1
        assert all(torch.equal(image, other) for (_, image), other in zip(taken, expected, strict=True))
        assert [batch.images.device.type for batch in feed.warm(2, 1)] == ["meta"] and len(locked) == 1


def test_where_no_whole_batches_are_copied_from_the_host_nothing_is_fed_and_the_reason_is_told(
    image_folder, tmp_path, monkeypatch
):
    with closing(feed_to(torch.device("cpu"), image_folder, tmp_path)) as feed:
        assert feed.not_fed == "a CPU is not fed from page-locked memory" and feed.alone_on.type == "cpu"
    with closing(feed_to(ELSEWHERE, image_folder, tmp_path, "synthetic")) as feed:
        assert "makes its batches where they are used" in feed.not_fed and feed.alone_on == ELSEWHERE
    monkeypatch.setattr(TurboLoader, "_batches", TurboLoader._host_batches)  # as one whose pixels are made there
    with closing(feed_to(ELSEWHERE, image_folder, tmp_path)) as feed:
        assert "copies no whole batches from the host, or does not show it" in feed.not_fed
        assert feed.alone_on == ELSEWHERE
    # what is copied to be resized there is not the batch
    with closing(feed_to(ELSEWHERE, raw_folder(tmp_path), tmp_path, resize="device")) as feed:
        assert feed.not_fed == "what is resized on the device is not copied there as whole batches"
        assert feed.alone_on == ELSEWHERE


def raw_folder(folder):
    """A packed set of raw images, as resizing on the device needs it."""
    images = write_image_folder(folder / "few", {"train": {"ant": 20, "bee": 20}, "val": {"ant": 1, "bee": 1}})
    command = ["tools/convert.py", "folder", "--source", str(images), "--out", str(folder / "raw")]
    assert python(*command, "--write-mode", "raw").returncode == 0
    return folder / "raw"


@pytest.mark.parametrize(("loader", "burst"), [("turbo", 1), ("torchvision", 3)])
def test_batches_come_in_bursts_where_each_worker_makes_one(loader, burst, image_folder, tmp_path):
    with closing(feed_to(torch.device("cpu"), image_folder, tmp_path, loader)) as feed:
        assert feed.burst(3) == burst


def test_pixels_that_stay_on_the_device_are_the_same_batch_after_batch(opened, image_folder, tmp_path):
    records, plan, _, _ = opened
    options = loader_options(short_config(image_folder, tmp_path).data, ONE_RANK)
    loader = open_loader("synthetic", records, plan, options)
    taken = [batch.images for batch in on_the_device(loader, 7)]
    assert len(taken) == 7 and all(torch.equal(images, taken[0]) for images in taken)
    assert len({images.data_ptr() for images in taken}) == 1
    loader.close()
