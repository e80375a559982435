"""The promises of `loaders.api.Loader`, for every loader over every kind of records.

One promise has no test: tensors are valid only until the next `next()`. So everything kept here is cloned.
"""

import gc
import json
import os
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from settling import settled
from stored_samples import BICUBIC_LOADERS, LOADERS, READING_LOADERS, for_each, for_each_over_all_records, plain_image

from loaders.api import Batch
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Sequential, Shard, Shuffled, View

every_loader = for_each(LOADERS)
every_loader_over_all_records = for_each_over_all_records(LOADERS)
all_that_resize_over_all_records = for_each_over_all_records([*READING_LOADERS, *BICUBIC_LOADERS])


def kept(batches) -> list[Batch]:
    return [Batch(b.images.clone(), b.labels.clone(), b.ids.clone(), b.num_valid) for b in batches]


def same_bits(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.ids, b.ids)
        and a.num_valid == b.num_valid
        for a, b in zip(one, other, strict=True)
    )


@every_loader_over_all_records
def test_batches_are_what_their_description_says(records, name, resize, open_one):
    loader = open_one(records, name, resize)
    batches = kept(loader.epoch(3))
    assert len(batches) == len(loader) == 37 // 8
    for number, batch in enumerate(batches):
        rows = loader._plan.rows(3, number)
        assert batch.images.shape == (8, 3, 32, 32) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == batch.ids.dtype == torch.int64
        assert batch.images.device == batch.labels.device == batch.ids.device == torch.device("cpu")
        assert batch.ids.tolist() == rows.ids.tolist()
        assert batch.labels.tolist() == records.labels[rows.ids].tolist()
        assert batch.num_valid == 8


@all_that_resize_over_all_records
@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(20), CenterCrop(28, 32)], ids=lambda c: type(c).__name__)
def test_pixels_are_those_of_the_planned_rectangle_filled_resized_flipped(records, case, name, resize, crop, open_one):
    view = View(crop, 32, 0.5, fill=(10, 130, 250))
    loader = open_one(records, name, resize, view=view, order=Shuffled(37))
    (batch,) = kept(loader.epoch(1))
    rows = loader._plan.rows(1, 0)
    assert 0 < rows.flips.sum() < 37
    for row, index in enumerate(rows.ids.tolist()):
        expected = plain_image(records, index, rows.rects[row], rows.flips[row], 32, view.fill, resize)
        off = np.abs(batch.images[row].permute(1, 2, 0).numpy().astype(int) - expected)
        assert off.max() <= case.tolerance, (index, rows.rects[row])


@every_loader_over_all_records
def test_padding_is_marked_and_evaluation_keeps_one_shape(records, name, resize, open_one):
    view = View(CenterCrop(28, 32), 32)
    loader = open_one(records, name, resize, order=Sequential(16), view=view, num_ahead=1)
    batches = kept(loader.epoch(0))
    assert [batch.num_valid for batch in batches] == [16, 16, 5]
    last = batches[-1]
    assert last.images.shape == (16, 3, 32, 32)
    assert name == "synthetic" or not last.images[5:].any()
    assert last.ids[5:].tolist() == last.labels[5:].tolist() == [-1] * 11
    assert torch.cat([batch.ids[: batch.num_valid] for batch in batches]).tolist() == list(range(37))


@every_loader_over_all_records
def test_workers_ahead_and_repetition_change_no_bit(records, name, resize, open_one):
    first = kept(open_one(records, name, resize, num_workers=1).epoch(2))
    for num_workers, num_ahead in ((2, 3), (3, 1), (2, 8)):
        loader = open_one(records, name, resize, num_workers=num_workers, num_ahead=num_ahead)
        assert same_bits(kept(loader.epoch(2)), first)
    assert same_bits(kept(loader.epoch(2)), first)


@every_loader_over_all_records
def test_an_epoch_entered_anywhere_is_the_tail_of_the_whole(records, name, resize, open_one):
    loader = open_one(records, name, resize)
    whole = kept(loader.epoch(5))
    for start in range(len(loader) + 1):
        assert same_bits(kept(loader.epoch(5, start)), whole[start:])


# What follows does not depend on how samples are stored.


@every_loader
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_deliver_every_sample_exactly_once(samples, name, resize, world_size, open_one):
    delivered: dict[str, list[int]] = {"train": [], "val": []}
    lengths = set()
    for rank in range(world_size):
        shard = Shard(rank, world_size)
        train = open_one(samples, name, resize, shard=shard, order=Shuffled(30), num_workers=1)
        val = open_one(samples, name, resize, shard=shard, order=Sequential(3), num_workers=1)
        lengths.add((len(train), len(val)))
        for split, loader in (("train", train), ("val", val)):
            batches = kept(loader.epoch(0))
            assert len(batches) == len(loader)
            delivered[split] += [i for batch in batches for i in batch.ids[: batch.num_valid].tolist()]
    assert len(lengths) == 1
    assert sorted(delivered["val"]) == list(range(37))
    assert len(delivered["train"]) == len(set(delivered["train"])) == 30


@every_loader
def test_sizes_change_between_epochs_as_scheduled(samples, name, resize, open_one):
    loader = open_one(samples, name, resize, view=View(RandomResizedCrop(), ((0, 24), (1, 40)), 0.5))
    for epoch, size_px in ((0, 24), (1, 40), (0, 24)):
        assert all(batch.images.shape == (8, 3, size_px, size_px) for batch in loader.epoch(epoch))


def _held(feeders_may_end_s: float = 0) -> tuple[int, int, int]:
    """Threads, child processes and open files of this process.

    The threads of DataLoader's queues end by themselves, a moment after their queue was closed.
    """
    until = time.monotonic() + feeders_may_end_s
    while any("QueueFeeder" in thread.name for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.01)
    return threading.active_count(), len(psutil.Process().children()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@every_loader
@pytest.mark.parametrize("leave", ["drop", "break", "close iterator", "close loader", "finish", "never begin"])
def test_nothing_is_left_behind_however_an_epoch_ends(samples, name, resize, leave, open_one):
    next(open_one(samples, name, resize).epoch(0))  # what torch opens once and keeps
    gc.collect()  # what other tests left; from here on nothing may need the collector to go
    before = _held(60)
    for turn in range(3):
        loader = open_one(samples, name, resize)
        iterator = loader.epoch(turn)
        if leave == "finish":
            kept(iterator)
        elif leave == "break":
            for batch in iterator:
                del batch
                break
        elif leave != "never begin":
            next(iterator)
        if leave == "close iterator":
            iterator.close()
        elif leave == "close loader":
            loader.close()
        else:
            del iterator
        assert settled(lambda: _held(60), before) == before
        loader.close()


@every_loader
def test_asking_for_an_epoch_ends_the_one_before_and_says_so(samples, name, resize, open_one):
    loader = open_one(samples, name, resize)
    old = loader.epoch(0)
    next(old)
    whole = kept(loader.epoch(1))
    assert len(whole) == 4
    with pytest.raises(FeedrateError, match="another epoch was asked for"):
        next(old)


@every_loader
def test_a_finished_epoch_stays_finished(samples, name, resize, open_one):
    loader = open_one(samples, name, resize)
    iterator = loader.epoch(0)
    kept(iterator)
    kept(loader.epoch(1))
    loader.close()
    assert next(iterator, None) is None


@every_loader
def test_closing_is_final_and_can_be_repeated(samples, name, resize, open_one):
    loader = open_one(samples, name, resize)
    iterator = loader.epoch(0)
    next(iterator)
    loader.close()
    loader.close()
    with pytest.raises(FeedrateError, match="closed"):
        next(iterator)
    with pytest.raises(FeedrateError, match="closed"):
        loader.epoch(0)


@every_loader
def test_loaders_can_iterate_at_once(samples, name, resize, open_one):
    train = open_one(samples, name, resize)
    val = open_one(samples, name, resize, order=Sequential(8), view=View(CenterCrop(28, 32), 32))
    alone = kept(train.epoch(0)), kept(val.epoch(0))
    together: tuple[list[Batch], list[Batch]] = ([], [])
    for one, other in zip(train.epoch(0), val.epoch(0), strict=False):
        together[0].extend(kept([one]))
        together[1].extend(kept([other]))
    assert same_bits(together[0], alone[0]) and same_bits(together[1], alone[1][:4])


@every_loader
def test_an_epoch_or_batch_that_does_not_exist_is_refused(samples, name, resize, open_one):
    loader = open_one(samples, name, resize)
    for index, start in ((-1, 0), (0, -1), (0, 5)):
        with pytest.raises(FeedrateError, match=r"batches 0 … 3"):
            loader.epoch(index, start)


@every_loader
def test_a_loader_that_is_iterated_itself_says_how_it_is_meant(samples, name, resize, open_one):
    with pytest.raises(TypeError, match=rf"loader '{name}' is not iterated itself.*loader\.epoch\(0\)"):
        list(open_one(samples, name, resize))


@every_loader
def test_identities_are_json_name_the_stream_and_ignore_workers(samples, name, resize, open_one):
    identity = open_one(samples, name, resize).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["pixels"] == {"loader": name, "resize": resize}
    assert open_one(samples, name, resize, num_workers=1, num_ahead=1).identity() == identity
    other_loader = open_one(samples, "torchvision" if name == "turbo" else "turbo", "exact").identity()
    assert other_loader["stream"] == identity["stream"] and other_loader["pixels"] != identity["pixels"]
    assert open_one(samples, name, resize, seed=1).identity()["stream"] != identity["stream"]


@every_loader
def test_the_global_random_state_is_left_alone(samples, name, resize, open_one):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kept(open_one(samples, name, resize).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
