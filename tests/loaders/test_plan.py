"""The stream of samples: the same for ever, complete, evenly mixed, equal for any number of ranks."""

import json
import re
import threading
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sampling, Sequential, Shard, Shuffled, View
from loaders.view import size_ramp

TRAINING = View(RandomResizedCrop(), 32, 0.5)


def plan_of(num_samples: int, order, view: View = TRAINING, seed: int = 0) -> Plan:
    sides = np.arange(num_samples)
    return Plan(100 + sides * 7 % 301, 90 + sides * 11 % 211, order, view, seed)


def same_rows(one, other) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ids", "rects", "flips"))


def test_the_stream_never_changes():
    sides = np.arange(23)
    plan = Plan(100 + 7 * sides, 300 - 9 * sides, Shuffled(8), TRAINING, seed=11)
    for (epoch, batch), (ids, rects, flips) in GOLDEN_ROWS.items():
        rows = plan.rows(epoch, batch)
        assert rows.ids.tolist() == ids
        assert rows.rects.tolist() == rects
        assert rows.flips.astype(int).tolist() == flips


def test_the_stream_of_many_samples_never_changes():
    plan = Plan(np.full(100_000, 400), np.full(100_000, 300), Shuffled(100), TRAINING, seed=2)
    rows = plan.span(1, 0, 100_000)
    content = rows.ids.astype("<i8").tobytes() + rows.rects.astype("<i4").tobytes() + rows.flips.tobytes()
    assert sha256(content).hexdigest() == "17ac0bae456d7c1d5502af60365638a1f22c7e62e3fe4d48111c8fe061811a40"


def test_every_position_is_reached_directly_as_by_walking_there():
    plan = plan_of(1000, Shuffled(32))
    walked = [plan.rows(2, batch) for batch in range(plan.num_batches())]
    for batch in reversed(range(plan.num_batches())):
        assert same_rows(plan_of(1000, Shuffled(32)).rows(2, batch), walked[batch])


def test_a_samples_crop_does_not_depend_on_its_neighbours():
    all_at_once = plan_of(300, Sequential(300)).rows(1, 0)
    one_by_one = [plan_of(300, Sequential(1)).rows(1, index) for index in range(300)]
    assert np.array_equal(all_at_once.rects, np.concatenate([rows.rects for rows in one_by_one]))
    assert np.array_equal(all_at_once.flips, np.concatenate([rows.flips for rows in one_by_one]))


@given(num_samples=st.integers(1, 400), epoch=st.integers(0, 5), seed=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(num_samples, epoch, seed):
    order = plan_of(num_samples, Shuffled(1), seed=seed).span(epoch, 0, num_samples).ids
    assert sorted(order.tolist()) == list(range(num_samples))


def test_epochs_and_seeds_have_different_orders_crops_and_flips():
    first = plan_of(500, Shuffled(500)).rows(0, 0)
    for other in (plan_of(500, Shuffled(500)).rows(1, 0), plan_of(500, Shuffled(500), seed=1).rows(0, 0)):
        assert np.mean(first.ids == other.ids) < 0.02
        by_id, other_by_id = np.argsort(first.ids), np.argsort(other.ids)
        assert np.mean(np.all(first.rects[by_id] == other.rects[other_by_id], axis=1)) < 0.05
        assert 0.35 < np.mean(first.flips[by_id] == other.flips[other_by_id]) < 0.65


def test_samples_move_as_far_as_in_a_uniform_shuffle():
    num_samples = 100_000
    ids = plan_of(num_samples, Shuffled(1)).span(0, 0, num_samples).ids
    displacement = np.abs(ids - np.arange(num_samples)).mean() / num_samples
    assert abs(displacement - 1 / 3) < 0.004  # its standard deviation is 0.0008
    neighbours = np.abs(np.diff(ids)).mean() / num_samples
    assert abs(neighbours - 1 / 3) < 0.004


def test_flips_have_their_probability():
    for probability, low, high in ((0.0, 0, 0), (0.25, 0.24, 0.26), (1.0, 1, 1)):
        view = View(CenterCrop(), 32, probability)
        assert low <= plan_of(40_000, Shuffled(1), view).span(0, 0, 40_000).flips.mean() <= high


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_alternating_flips_show_each_sample_by_turns_as_it_is_and_mirrored(probability):
    alternating = View(RandomResizedCrop(), 32, probability, flip_alternates=True)
    plan, by_chance = (
        plan_of(500, Shuffled(50), alternating),
        plan_of(500, Shuffled(50), View(alternating.crop, 32, 0.5)),
    )
    flips = np.empty((6, 500), dtype=bool)
    for epoch in range(6):
        rows, others = plan.span(epoch, 0, 500), by_chance.span(epoch, 0, 500)
        assert np.array_equal(rows.ids, others.ids) and np.array_equal(rows.rects, others.rects)
        flips[epoch, rows.ids] = rows.flips
        assert np.array_equal(plan.rows(epoch, 3).flips, rows.flips[150:200])
    assert np.array_equal(flips[1:], ~flips[:-1])
    assert abs(flips[0].mean() - probability) < 0.07


def test_a_sample_that_stands_in_an_epoch_twice_alternates_for_each_time():
    view = View(RandomResizedCrop(), 32, 0.5, flip_alternates=True)
    sides, flips = np.full(400, 64), np.empty((2, 2, 400), dtype=bool)
    plan = Plan(sides, sides, Shuffled(80), view, sampling=Sampling(views=2))
    for epoch in (0, 1):
        rows = plan.span(epoch, 0, 800)
        for time in (0, 1):  # the two views of a sample stand side by side
            flips[epoch, time, rows.ids[time::2]] = rows.flips[time::2]
    assert np.array_equal(flips[1], ~flips[0])
    assert 0.35 < np.mean(flips[0, 0] == flips[0, 1]) < 0.65, "both are drawn apart"


def test_training_leaves_out_another_remainder_each_epoch():
    plan = plan_of(100, Shuffled(32))
    left_out = []
    for epoch in range(6):
        seen = np.concatenate([plan.rows(epoch, batch).ids for batch in range(plan.num_batches())])
        assert len(seen) == len(set(seen.tolist())) == 96
        left_out.append(frozenset(range(100)) - set(seen.tolist()))
    assert len(set(left_out)) == 6


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_each_global_batch_of_one_and_the_same_order(world_size):
    plan, whole = plan_of(200, Shuffled(30)), plan_of(200, Shuffled(30))
    assert plan.num_batches(world_size) == 6
    for batch in range(6):
        parts = [plan.rows(1, batch, Shard(rank, world_size)) for rank in range(world_size)]
        together = whole.rows(1, batch)
        for name in ("ids", "rects", "flips"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(together, name))


@pytest.mark.parametrize(
    ("world_size", "nearest"), [(3, "2 or 4 ranks"), (48, "32 or 64 ranks"), (100, "128 or 64 ranks")]
)
def test_a_world_size_that_does_not_divide_the_batch_is_told_the_nearest_that_do(world_size, nearest):
    with pytest.raises(FeedrateError, match=nearest) as caught:
        plan_of(2000, Shuffled(256)).num_batches(world_size)
    sizes = [int(size) for size in re.findall(r"batch size of (\d+)(?: or (\d+))?", str(caught.value))[0] if size]
    assert all(size % world_size == 0 for size in sizes) and sizes


@pytest.mark.parametrize("num_samples", [1, 7, 23, 500])
@pytest.mark.parametrize("batch", [1, 4, 32])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_evaluation_counts_every_sample_exactly_once(num_samples, batch, world_size):
    plan = plan_of(num_samples, Sequential(batch), View(CenterCrop(), 32))
    counted: list[int] = []
    for rank in range(world_size):
        for number in range(plan.num_batches(world_size)):
            rows = plan.rows(0, number, Shard(rank, world_size))
            assert len(rows) == batch == len(rows.rects) == len(rows.flips)
            assert np.all(rows.ids[rows.num_valid :] == -1) and np.all(rows.ids[: rows.num_valid] >= 0)
            counted += rows.ids[: rows.num_valid].tolist()
    assert sorted(counted) == list(range(num_samples))


def test_evaluation_batches_hold_the_same_samples_for_any_number_of_ranks():
    plan = plan_of(50, Sequential(8), View(CenterCrop(), 32))
    alone = [plan.rows(0, batch).ids.tolist() for batch in range(plan.num_batches(1))]
    for world_size in (2, 3):
        shared = [
            plan.rows(0, batch, Shard(rank, world_size)).ids.tolist()
            for batch in range(plan.num_batches(world_size))
            for rank in range(world_size)
        ]
        assert shared[: len(alone)] == alone
        assert all(ids == [-1] * 8 for ids in shared[len(alone) :])


def test_an_epoch_of_imagenet_is_planned_in_bounded_memory():
    num_samples = 1_281_167
    plan = Plan(np.full(num_samples, 500), np.full(num_samples, 375), Shuffled(256), TRAINING)
    tracemalloc.start()
    try:
        rows = plan.span(0, 0, num_samples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(np.unique(rows.ids)) == num_samples
    result = rows.ids.nbytes + rows.rects.nbytes + rows.flips.nbytes  # 32 MB
    assert peak < result + 40e6, f"{peak / 1e6:.0f} MB"


def test_a_plan_can_be_shared_by_threads_in_different_epochs():
    plan, expected = plan_of(300, Shuffled(30)), [plan_of(300, Shuffled(30)).rows(epoch, 3) for epoch in range(6)]
    wrong = []

    def ask(first: int) -> None:
        try:
            for turn in range(200):
                epoch = (first + turn) % 6
                if not same_rows(plan.rows(epoch, 3), expected[epoch]):
                    wrong.append(epoch)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sizes_follow_their_schedule():
    plan = plan_of(64, Shuffled(8), View(RandomResizedCrop(), ((0, 96), (3, 128), (5, 160))))
    assert [plan.rows(epoch, 0).size_px for epoch in range(7)] == [96, 96, 96, 128, 128, 160, 160]


@pytest.mark.parametrize(
    ("ramp", "schedule"),
    [
        # FFCV's recipes for ResNet-50: 88 and 16 epochs
        ((160, 192, 65, 76), ((0, 160), (71, 192))),
        ((160, 192, 11, 13), ((0, 160), (12, 192))),
        ((128, 224, 0, 6), ((0, 128), (2, 160), (3, 192), (6, 224))),
        ((96, 96, 2, 3), ((0, 96),)),
    ],
)
def test_a_ramp_is_ffcvs(ramp, schedule):
    assert size_ramp(*ramp) == schedule
    low, high, first, last = ramp
    view = View(size_px=size_ramp(*ramp))
    for epoch in range(90):
        ffcvs = low if epoch <= first else high if epoch >= last else np.interp(epoch, [first, last], [low, high])
        assert view.size_at(epoch) == int(np.round(ffcvs / 32)) * 32


def test_identities_are_json_and_tell_streams_apart():
    changes = [
        plan_of(64, Shuffled(8)),
        plan_of(65, Shuffled(8)),
        plan_of(64, Shuffled(16)),
        plan_of(64, Sequential(8)),
        plan_of(64, Shuffled(8), seed=1),
        plan_of(64, Shuffled(8), View(RandomResizedCrop((0.25, 1.0)), 32, 0.5)),
        plan_of(64, Shuffled(8), View(PadCrop(), 32, 0.5)),
        plan_of(64, Shuffled(8), View(RandomResizedCrop(), ((0, 32), (1, 48)), 0.5)),
        plan_of(64, Shuffled(8), View(RandomResizedCrop(), 32, 0.25)),
        plan_of(64, Shuffled(8), View(RandomResizedCrop(), 32, 0.5, (1, 2, 3))),
        plan_of(64, Shuffled(8), View(RandomResizedCrop(), 32, 0.5, flip_alternates=True)),
        Plan(np.full(64, 100), np.full(64, 101), Shuffled(8), TRAINING),
    ]
    texts = [json.dumps(plan.identity()) for plan in changes]
    assert len(set(texts)) == len(texts)
    for plan, text in zip(changes, texts, strict=True):
        assert json.loads(text) == plan.identity()


def test_the_identity_of_flips_by_chance_is_as_it_was_before_they_could_alternate():
    assert "flip_alternates" not in plan_of(64, Shuffled(8)).identity()["view"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Shuffled(0), "batch size 0"),
        (lambda: Sequential(-1), "-1"),
        (lambda: Shard(2, 2), "rank 2"),
        (lambda: View(size_px=((1, 32),)), "start at epoch 0"),
        (lambda: View(size_px=((0, 32), (0, 48))), "go up"),
        (lambda: View(size_px=0), "size 0"),
        (lambda: size_ramp(160, 192, 5, 5), "from epoch 5 to 5"),
        (lambda: size_ramp(160, 200, 5, 7), "multiples of 32"),
        (lambda: size_ramp(192, 160, 5, 7), "go up"),
        (lambda: View(flip_probability=1.5), "1.5"),
        (lambda: View(fill=(0, 0, 256)), "256"),
        (lambda: View(fill=(0, 0)), r"fill \(0, 0\) must be three values"),
        (lambda: Plan([3, 4], [3], Shuffled(1), View()), "equal"),
        (lambda: Plan([0], [3], Shuffled(1), View()), "sides"),
        (lambda: Plan([9, 70_000], [3, 3], Shuffled(1), View()), "sample 1 is 70000×3 px: sides must"),
        (lambda: plan_of(7, Shuffled(8)).num_batches(), "at most 7"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_lengths_are_those_of_the_batches_that_exist(num_samples, batch, world_size):
    plan = plan_of(num_samples, Sequential(batch), View(CenterCrop(), 32))
    last = plan.num_batches(world_size) - 1
    assert plan.rows(0, last, Shard(0, world_size)).num_valid > 0
    assert plan.rows(0, last + 1, Shard(0, world_size)).num_valid == 0


GOLDEN_ROWS = {
    (0, 0): (
        [0, 13, 1, 15, 7, 8, 5, 16],
        [
            *([5, 71, 90, 101], [15, 22, 174, 138], [32, 30, 64, 85], [1, 4, 187, 160]),
            *([2, 67, 143, 111], [4, 62, 150, 118], [0, 52, 135, 165], [69, 22, 104, 108]),
        ],
        [1, 0, 0, 1, 1, 0, 1, 1],
    ),
    (4, 1): (
        [21, 10, 0, 15, 4, 22, 16, 18],
        [
            *([105, 4, 71, 76], [26, 44, 103, 78], [1, 116, 98, 85], [63, 9, 138, 152]),
            *([5, 109, 75, 98], [20, 0, 120, 100], [96, 46, 49, 64], [50, 7, 162, 131]),
        ],
        [0, 1, 0, 0, 0, 0, 1, 1],
    ),
}


def test_sides_and_seeds_may_be_of_any_integer_type_and_nothing_else():
    plain = Plan([50] * 8, [50] * 8, Shuffled(4), View(size_px=32), seed=3)
    plan = Plan([50] * 8, [50] * 8, Shuffled(4), View(size_px=np.int64(32)), seed=np.int64(3))
    assert json.loads(json.dumps(plan.identity())) == plain.identity()
    for size_px in (32.0, "32", None):
        with pytest.raises(FeedrateError, match=f"size_px is {size_px!r}: it must be a whole number"):
            View(size_px=size_px)
    with pytest.raises(FeedrateError, match="must be one side, since images are squares"):
        View(size_px=(32, 48))
    for seed in (1.5, None):
        with pytest.raises(FeedrateError, match="seed is .*: it must be a whole number"):
            Plan([50] * 8, [50] * 8, Shuffled(4), View(), seed=seed)
