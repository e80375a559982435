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
from short_runs import ONE_RANK, short_config

from engine.data import loader_options, plan_of
from engine.profiler.feeds import RealFeed, Source, on_the_device
from engine.profiler.stored_batches import StoredBatches
from loaders.choose import open_loader
from loaders.page_eviction import bring_in, resident_share, stored_bytes
from loaders.plan import Shard
from loaders.read_ahead import _Reader
from loaders.records import open_records


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
    assert len(feed.first_batch_s) == 5


def test_cold_turns_see_the_last_batches_whose_bytes_had_left_memory(opened, monkeypatch):
    records, plan, stored, feed = opened
    ids_of(feed.warm(2, 5))
    wanted = stored_bytes(records, np.concatenate([plan.rows(0, number).ids for number in (3, 4)]))
    before = resident_share(wanted)
    seen = []
    really_open = feed.open

    def open_and_look(workers):
        seen.append(resident_share(wanted))
        really_open(workers)

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
    os.sync()  # what is not on the disk yet cannot be dropped
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


def test_pixels_that_stay_on_the_device_are_the_same_batch_after_batch(opened, image_folder, tmp_path):
    records, plan, _, _ = opened
    options = loader_options(short_config(image_folder, tmp_path).data, ONE_RANK)
    loader = open_loader("synthetic", records, plan, options)
    taken = [batch.images for batch in on_the_device(loader, 7)]
    assert len(taken) == 7 and all(torch.equal(images, taken[0]) for images in taken)
    assert len({images.data_ptr() for images in taken}) == 1
    loader.close()
