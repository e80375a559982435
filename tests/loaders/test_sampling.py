"""Subsets, weighted draws, repeats and views: what is drawn, how often, and cut differently each time."""

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.counter_random import below_64
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sampling, Sequential, Shard, Shuffled, View
from loaders.subsets import balanced_weights, choose_samples, labels_of

LABELS = np.arange(1000) * 7 % 10
TRAINING = View(RandomResizedCrop(), 32, 0.5)


def plan_of(num_samples: int, order, sampling: Sampling | None = None, seed: int = 0) -> Plan:
    return Plan(np.full(num_samples, 400), np.full(num_samples, 300), order, TRAINING, seed, sampling)


def epoch_of(plan: Plan, epoch: int = 0):
    """All full batches of an epoch."""
    return plan.span(epoch, 0, plan.num_batches() * plan.order.batch_size_per_rank(1))


# subsets


def test_a_subset_by_number_share_or_class_is_of_that_size_and_the_smaller_is_part_of_the_larger():
    assert choose_samples(LABELS) is None and choose_samples(LABELS, subset=1000) is None
    hundred, half = choose_samples(LABELS, subset=100), choose_samples(LABELS, subset=0.5)
    assert len(hundred) == 100 and len(half) == 500 and set(hundred.tolist()) < set(half.tolist())
    assert len(choose_samples(LABELS[:100], subset=0.07)) == 7, "the share is the decimal number that was written"
    some = choose_samples(LABELS, [2, 9])
    assert len(some) == 200 and set(LABELS[some].tolist()) == {2, 9}
    assert len(choose_samples(LABELS, [2, 9], 0.25)) == 50
    assert np.all(np.diff(hundred) > 0)
    assert choose_samples(LABELS, subset=100, seed=1).tolist() != hundred.tolist()
    assert abs(half.mean() - 500) < 50, "spread over the set"


def test_chosen_classes_that_a_split_has_no_samples_of_are_told_as_such():
    with pytest.raises(FeedrateError, match="the classes chosen have no samples in this split"):
        choose_samples(LABELS, [1_000])


def test_the_subset_never_changes():
    assert choose_samples(LABELS, subset=6, seed=3).tolist() == GOLDEN_SUBSET


def test_an_epoch_over_a_subset_has_its_samples_alone_and_the_crops_they_have_without_it():
    pool = choose_samples(LABELS, subset=300)
    plan, whole = plan_of(1000, Shuffled(32), Sampling(pool)), plan_of(1000, Shuffled(32))
    assert plan.num_samples == 1000 and plan.num_chosen == 300 and plan.num_batches() == 9
    rows, all_rows = epoch_of(plan, 2), epoch_of(whole, 2)
    assert len(set(rows.ids.tolist())) == 288 and set(rows.ids.tolist()) <= set(pool.tolist())
    rects = dict(zip(all_rows.ids.tolist(), all_rows.rects.tolist(), strict=True))
    assert all(rects.get(i, rect) == rect for i, rect in zip(rows.ids.tolist(), rows.rects.tolist(), strict=True))
    substitutes = {int(plan.substitute(rows, row, attempt).ids[0]) for row in range(288) for attempt in range(4)}
    assert substitutes <= set(pool.tolist()) and len(substitutes) > 250


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_evaluation_over_a_subset_counts_each_of_it_once(world_size):
    pool = choose_samples(LABELS, [1, 4], 37)
    plan = plan_of(1000, Sequential(4), Sampling(pool))
    counted = [
        plan.rows(0, batch, Shard(rank, world_size)).ids
        for rank in range(world_size)
        for batch in range(plan.num_batches(world_size))
    ]
    ids = np.concatenate(counted)
    assert sorted(ids[ids >= 0].tolist()) == pool.tolist()


# weighted draws


@given(bound=st.integers(1, 2**63), bits=st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_64_random_bits_map_onto_a_bound_as_plain_integers_do(bound, bits):
    expected = [value * bound >> 64 for value in bits]
    assert below_64(np.array(bits, dtype=np.uint64), bound).tolist() == expected


def test_samples_are_drawn_as_often_as_their_weights_say_and_those_of_weight_0_never():
    weights = np.array([0, 1, 2, 0.5, 0, 4.5, 0])
    counts = np.zeros(7)
    plan = plan_of(7, Shuffled(1), Sampling(weights=weights))
    num_epochs = 3000
    for epoch in range(num_epochs):
        counts += np.bincount(plan.span(epoch, 0, 7).ids, minlength=7)
    assert np.all(counts[weights == 0] == 0)
    expected = 7 * num_epochs * weights / 8
    chi_square = ((counts - expected)[weights > 0] ** 2 / expected[weights > 0]).sum()
    assert chi_square < 25  # 3 degrees of freedom: p = 1.5e-5
    rows = plan.span(0, 0, 7)
    assert all(weights[plan.substitute(rows, row, 1).ids[0]] > 0 for row in range(7))


def test_balanced_draws_give_each_class_its_share_however_many_samples_it_has():
    labels = np.repeat([0, 1, 2, 4], [600, 300, 90, 10])
    ids = np.concatenate(
        [epoch_of(plan_of(1000, Shuffled(100), Sampling(weights=balanced_weights(labels))), e).ids for e in range(20)]
    )
    counts = np.bincount(labels[ids], minlength=5)
    assert counts[3] == 0 and np.all(np.abs(counts[[0, 1, 2, 4]] - 5000) < 6 * np.sqrt(5000 * 0.75))
    pool = np.arange(500, 1000)  # here the second class is the largest
    weights = balanced_weights(labels, pool)
    ids = np.concatenate(
        [epoch_of(plan_of(1000, Shuffled(100), Sampling(pool, weights)), epoch).ids for epoch in range(20)]
    )
    assert ids.min() >= 500
    counts = np.bincount(labels[ids], minlength=5)
    assert np.all(np.abs(counts[[0, 1, 2, 4]] - 2500) < 6 * np.sqrt(2500 * 0.75))


def test_weighted_draws_never_change():
    weights = np.array([0.1, 3, 0, 1 / 3, 2, 1e-9])
    rows = plan_of(6, Shuffled(6), Sampling(weights=weights), seed=4).rows(1, 0)
    assert (rows.ids.tolist(), rows.rects.tolist(), rows.flips.astype(int).tolist()) == GOLDEN_WEIGHTED


def test_a_sample_drawn_again_is_cut_in_another_way_and_the_first_time_as_ever():
    plan = plan_of(50, Shuffled(50), Sampling(weights=np.repeat([1.0, 20.0], 25)))
    plain = plan_of(50, Shuffled(50))
    rows, once = plan.span(3, 0, 50), plain.span(3, 0, 50)
    first_rect = dict(zip(once.ids.tolist(), once.rects.tolist(), strict=True))
    seen: Counter[int] = Counter()
    rects: set[tuple[int, ...]] = set()
    for index, rect in zip(rows.ids.tolist(), rows.rects.tolist(), strict=True):
        if not seen[index]:
            assert rect == first_rect[index]
        seen[index] += 1
        rects.add((index, *rect))
    assert max(seen.values()) >= 3 and len(rects) == 50


# repeats


@settings(deadline=None)
@given(repeats=st.integers(2, 5), batch=st.integers(1, 40), num_samples=st.integers(40, 300), epoch=st.integers(0, 3))
def test_each_sample_is_repeated_in_an_epoch_of_unchanged_length(repeats, batch, num_samples, epoch):
    plan = plan_of(num_samples, Shuffled(batch), Sampling(repeats=repeats))
    assert plan.num_batches() == num_samples // batch
    rows = epoch_of(plan, epoch)
    counts = Counter(rows.ids.tolist())
    short = [count for count in counts.values() if count != repeats]
    assert max(counts.values()) <= repeats and len(short) <= 1, "but for the end of the epoch"
    per_sample = Counter((index, *rect) for index, rect in zip(rows.ids.tolist(), rows.rects.tolist(), strict=True))
    assert max(per_sample.values()) == 1, "each is cut differently"
    for number in range(plan.num_batches() - 1):
        ids = plan.rows(epoch, number).ids
        across = set(ids.tolist()) & set(plan.rows(epoch, number + 1).ids.tolist())
        assert len(across) <= 1, "the repeats of a sample stand in one batch, but for the batch's end"


@pytest.mark.parametrize(("batch", "world_size", "repeats"), [(24, 3, 3), (24, 6, 3), (32, 4, 2), (32, 8, 4)])
def test_ranks_get_different_repeats(batch, world_size, repeats):
    plan = plan_of(1000, Shuffled(batch), Sampling(repeats=repeats))
    for number in range(5):
        parts = [set(plan.rows(1, number, Shard(rank, world_size)).ids.tolist()) for rank in range(world_size)]
        assert all(len(part) == batch // world_size for part in parts), "a rank never has a sample twice"


def test_other_samples_are_repeated_each_epoch():
    plan = plan_of(300, Shuffled(30), Sampling(repeats=3))
    epochs = [set(epoch_of(plan, epoch).ids.tolist()) for epoch in range(30)]
    assert all(len(ids) == 100 for ids in epochs) and len(set().union(*epochs)) == 300
    assert all(len(one & other) < 60 for one, other in combinations(epochs, 2))


# views


def test_the_views_of_a_sample_are_consecutive_rows_cut_differently_the_first_as_ever():
    plan, plain = plan_of(100, Shuffled(24), Sampling(views=4)), plan_of(100, Shuffled(6))
    assert plan.num_batches() == plain.num_batches() == 16
    for batch in range(16):
        rows, once = plan.rows(2, batch), plain.rows(2, batch)
        assert np.array_equal(rows.ids.reshape(-1, 4), np.repeat(once.ids[:, None], 4, axis=1))
        assert np.array_equal(rows.rects[::4], once.rects) and np.array_equal(rows.flips[::4], once.flips)
        assert len({tuple(rect) for rect in rows.rects.tolist()}) == 24
    for rank in range(3):
        ids = plan.rows(0, 5, Shard(rank, 3)).ids
        assert np.array_equal(ids[::4], ids[3::4]), "all views of a sample are one rank's"


def test_views_go_with_weights_and_with_repeats():
    for sampling in (Sampling(weights=np.ones(60), views=2), Sampling(repeats=3, views=2)):
        rows = epoch_of(plan_of(60, Shuffled(12), sampling), 1)
        assert np.array_equal(rows.ids[::2], rows.ids[1::2])
        assert len({(index, *rect) for index, rect in zip(rows.ids, map(tuple, rows.rects), strict=True)}) == len(rows)


# all of them


def test_identities_are_json_and_tell_samplings_apart():
    ones = np.ones(64)
    samplings = [
        None,
        Sampling(np.arange(32)),
        Sampling(np.arange(1, 33)),
        Sampling(weights=ones),
        Sampling(weights=ones * np.arange(1, 65)),
        Sampling(np.arange(32), ones),
        Sampling(repeats=2),
        Sampling(views=2),
    ]
    identities = [plan_of(64, Shuffled(8), sampling).identity() for sampling in samplings]
    texts = [json.dumps(identity) for identity in identities]
    assert len(set(texts)) == len(texts)
    assert [json.loads(text) for text in texts] == identities
    assert "sampling" not in identities[0] and plan_of(64, Shuffled(8), Sampling()).identity() == identities[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: choose_samples(LABELS, subset=0), "subset of 0"),
        (lambda: choose_samples(LABELS, subset=1.5), "whole number"),
        (lambda: choose_samples(LABELS, subset=1001), "1 … 1000"),
        (lambda: choose_samples(LABELS, subset=1e-4), "makes 0 samples"),
        (lambda: choose_samples(LABELS, subset=float("nan")), "nan"),
        (lambda: choose_samples(LABELS, [11]), "no samples in this split"),
        (lambda: labels_of(["ant", "bea"], ("ant", "bee")), "no class 'bea': did you mean bee"),
        (lambda: Sampling(repeats=0), "0 repeats"),
        (lambda: Sampling(views=0), "0 views"),
        (lambda: Sampling(weights=np.ones(3), repeats=2), "one of the two"),
        (lambda: plan_of(3, Shuffled(1), Sampling(np.array([], dtype=np.int64))), "no sample is chosen"),
        (lambda: plan_of(3, Shuffled(1), Sampling(np.array([1, 3]))), "0 … 2"),
        (lambda: plan_of(3, Shuffled(1), Sampling(np.array([1, 0]))), "ascending"),
        (lambda: plan_of(3, Shuffled(1), Sampling(weights=np.ones(4))), "3 are needed"),
        (lambda: plan_of(3, Shuffled(1), Sampling(weights=np.array([1, -1, 1.0]))), "0 or above"),
        (lambda: plan_of(3, Shuffled(1), Sampling(weights=np.array([1, np.nan, 1.0]))), "finite"),
        (lambda: plan_of(3, Shuffled(1), Sampling(weights=np.zeros(3))), "above 0"),
        (lambda: plan_of(9, Sequential(1), Sampling(repeats=2)), "once, and is given repeats = 2: leave"),
        (lambda: plan_of(9, Sequential(2), Sampling(views=2)), "once, and is given views = 2: leave"),
        (
            lambda: plan_of(9, Sequential(2), Sampling(weights=np.ones(9))),
            "once, and is given weights: leave",
        ),
        (lambda: plan_of(99, Shuffled(9), Sampling(views=2)), "multiple of 2, not 9"),
        (lambda: plan_of(99, Shuffled(12), Sampling(views=4)).num_batches(6), "multiple of 24"),
        (lambda: plan_of(99, Shuffled(16), Sampling(np.arange(15))).num_batches(), "at most 15"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


GOLDEN_SUBSET = [425, 598, 621, 848, 871, 917]
GOLDEN_WEIGHTED = (
    [1, 1, 1, 4, 1, 4],
    [
        [1, 17, 232, 201],
        [35, 78, 103, 126],
        [189, 24, 150, 165],
        [35, 4, 323, 296],
        [92, 1, 197, 256],
        [60, 37, 282, 262],
    ],
    [1, 1, 1, 0, 0, 0],
)


def test_a_pool_of_no_whole_numbers_or_out_of_order_is_refused():
    """A mask would else be taken for samples 0 and 1; of unsigned numbers no difference lies below 0."""
    mask = np.arange(100) % 2 == 0
    for pool in (mask, np.arange(20.0), list(range(20)), range(20), np.arange(20).reshape(4, 5)):
        with pytest.raises(FeedrateError, match=r"they must be integers in a row, as np.flatnonzero\(mask\) gives"):
            plan_of(100, Shuffled(4), Sampling(pool=pool))
    with pytest.raises(FeedrateError, match="different ones"):
        plan_of(100, Shuffled(4), Sampling(pool=np.array([5, 3, 9, 5, 3], dtype=np.uint8)))
    for dtype in (np.uint8, np.uint64, np.int32):
        plan = plan_of(100, Shuffled(4), Sampling(pool=np.flatnonzero(mask).astype(dtype)))
        assert set(epoch_of(plan).ids.tolist()) <= set(range(0, 100, 2))
