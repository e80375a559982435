"""The block-shuffled order: complete, equal for any number of ranks, local to read, well mixed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_statistics import mixing_of

from loaders.counter_random import Draws
from loaders.crops import CenterCrop
from loaders.errors import FeedrateError
from loaders.orders import BlockShuffled, Shuffled
from loaders.plan import Plan, Sampling, Shard, View


@st.composite
def block_orders(draw):
    """An order and a number of samples that fill at least one batch."""
    lanes = draw(st.integers(1, 8))
    batch = lanes * draw(st.integers(1, 12))
    order = BlockShuffled(batch, draw(st.integers(1, 40)), draw(st.integers(1, 6)), lanes)
    return order, draw(st.integers(batch, batch * 20 + 300))


def ids_of(order, num_samples: int, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return order.ids(num_samples, Draws(seed, epoch))


def plan_of(num_samples: int, order, **settings) -> Plan:
    return Plan(np.full(num_samples, 40), np.full(num_samples, 30), order, View(CenterCrop(), 32), **settings)


@settings(deadline=None)
@given(block_orders(), st.integers(0, 3))
def test_an_epoch_is_a_permutation(case, epoch):
    order, num_samples = case
    assert sorted(ids_of(order, num_samples, epoch).tolist()) == list(range(num_samples))


def test_the_order_never_changes():
    assert ids_of(BlockShuffled(6, 4, 2, 2), 29, epoch=3, seed=5).tolist() == GOLDEN


@settings(deadline=None)
@given(block_orders())
def test_lanes_end_together_and_read_blocks_of_their_own_window_by_window(case):
    order, num_samples = case
    num_batches = order.num_batches(num_samples, 1)
    rows = ids_of(order, num_samples)[: num_batches * order.global_batch_size]
    lanes = rows.reshape(num_batches, order.lanes, -1).transpose(1, 0, 2)  # [lane, batch, rows of it]
    blocks = [set((lane // order.block_samples).ravel().tolist()) for lane in lanes]
    owners = np.array([sum(block in lane for lane in blocks) for block in set().union(*blocks)])
    assert (owners - 1).sum() <= order.lanes - 1, "a block lies across each cut between lanes, no other is shared"
    batch, windows = 0, []
    while batch < num_batches:
        first, stop = order.window(num_samples, batch)
        assert first == batch < stop <= num_batches
        assert all(order.window(num_samples, inside) == (first, stop) for inside in range(first, stop))
        windows.append(stop - first)
        for lane in lanes:
            touched = len(set((lane[first:stop] // order.block_samples).ravel().tolist()))
            per_window = max(order.blocks_mixed, -(-lane.shape[1] // order.block_samples))
            # cut at both ends, the short last block of the set among them, and the remainder that the last one takes
            assert touched <= per_window + 3 + lane.shape[1] // order.block_samples
        batch = stop
    assert max(windows) - min(windows) <= 1, "no window is left over that mixes less"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8])
def test_ranks_share_each_global_batch_of_one_and_the_same_order(world_size):
    order = BlockShuffled(48, 7, 3, lanes=8)
    plan, whole = plan_of(1000, order), plan_of(1000, order)
    assert plan.num_batches(world_size) == 1000 // 48
    seen: list[int] = []
    for batch in range(plan.num_batches(world_size)):
        parts = [plan.rows(2, batch, Shard(rank, world_size)).ids for rank in range(world_size)]
        assert np.array_equal(np.concatenate(parts), whole.rows(2, batch).ids)
        seen += np.concatenate(parts).tolist()
    assert len(seen) == len(set(seen)) == 1000 // 48 * 48


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_each_rank_reads_its_own_blocks_only(world_size):
    order, num_samples = BlockShuffled(64, 50, 4, lanes=8), 20_000
    plan = plan_of(num_samples, order)
    every = range(plan.num_batches(world_size))
    blocks = [set((plan.ids_in(0, every, Shard(rank, world_size)) // 50).tolist()) for rank in range(world_size)]
    shared = sum(len(blocks[one] & blocks[other]) for one in range(world_size) for other in range(one))
    assert shared <= world_size - 1
    assert sum(map(len, blocks)) >= 399
    first, stop = plan.window(100)
    ids = plan.ids_in(0, range(first, stop), Shard(0, world_size))
    num_runs = 1 + np.count_nonzero(np.diff(ids) > 1)
    assert num_runs <= (4 + 2) * 8 / world_size, "a window is a few long runs"


def test_epochs_differ_and_leave_out_other_samples():
    order, num_samples = BlockShuffled(32, 10, 4, lanes=4), 1007
    epochs = [ids_of(order, num_samples, epoch) for epoch in range(6)]
    for one, other in pairwise(epochs):
        assert np.mean(one == other) < 0.02
    left_out = {frozenset(ids[1007 // 32 * 32 :].tolist()) for ids in epochs}
    assert len(left_out) == 6


def test_every_sample_is_left_out_as_often_as_any_other():
    order, num_samples, num_epochs = BlockShuffled(40, 8, 3, lanes=4), 279, 800
    times = np.zeros(num_samples)
    for epoch in range(num_epochs):
        times[ids_of(order, num_samples, epoch)[240:]] += 1
    expected = num_epochs * 39 / 279
    assert abs(times.mean() - expected) < 1e-9
    assert np.abs(times - expected).max() < 6 * np.sqrt(expected), "some samples are left out far more often"


def test_views_and_a_subset_go_with_blocks():
    pool = np.arange(0, 2000, 2)
    plan = plan_of(2000, BlockShuffled(64, 20, 3, lanes=8), sampling=Sampling(pool=pool, views=2))
    assert plan.num_batches(4) == 1000 // 32
    seen = np.concatenate([plan.rows(0, batch).ids for batch in range(plan.num_batches())])
    assert np.array_equal(seen[::2], seen[1::2]) and len(set(seen.tolist())) == len(seen) / 2
    assert set(seen.tolist()) <= set(pool.tolist())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BlockShuffled(50, 10), "8 lanes do not divide the batch of 50: use a batch size of 48 or 56"),
        (lambda: BlockShuffled(0, 10), "batch size 0"),
        (lambda: BlockShuffled(8, 0), "blocks of 0 samples"),
        (lambda: BlockShuffled(8, 10, 0), "0 mixed"),
        (lambda: BlockShuffled(8, 10, 2, 0), "0 lanes"),
        (lambda: plan_of(100, BlockShuffled(64, 10)).num_batches(5), "world size 5"),
        (lambda: plan_of(7, BlockShuffled(8, 10)).num_batches(), "at most 7"),
        (lambda: plan_of(99, BlockShuffled(8, 10), sampling=Sampling(repeats=2)), "'shuffled'"),
        (lambda: plan_of(99, BlockShuffled(8, 10), sampling=Sampling(weights=np.ones(99))), "'shuffled'"),
        (lambda: plan_of(99, BlockShuffled(8, 10), sampling=Sampling(views=2)), "multiple of 16, not 8"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_block_of_the_whole_set_mixes_as_the_shuffled_order_does():
    order = BlockShuffled(100, 20_000, 1, lanes=1)
    ids = ids_of(order, 20_000)
    for other in (ids, ids_of(Shuffled(100), 20_000)):
        assert abs(np.abs(np.diff(other)).mean() / 20_000 - 1 / 3) < 0.01


def test_mixing_is_that_of_a_uniform_shuffle_where_storage_is_mixed_and_close_to_it_where_it_is_sorted():
    num_samples, batch = 200_000, 256
    by_class = np.arange(num_samples) * 1000 // num_samples
    uniform = Shuffled(batch)
    blocks = BlockShuffled(batch, 19)  # 2 MiB of ImageNet's originals
    for labels, stored_mixed in ((by_class, False), (by_class[ids_of(uniform, num_samples, 7)], True)):
        best, mixed = (
            mixing_of(ids_of(order, num_samples), ids_of(order, num_samples, 1), labels, batch)
            for order in (uniform, blocks)
        )
        assert abs(best.displacement - 1 / 3) < 0.003 and abs(mixed.displacement - 1 / 3) < 0.01
        assert abs(best.neighbour_distance - 1 / 3) < 0.003 and mixed.neighbour_distance > 0.32
        assert 225 < best.classes_per_batch < 228 and best.mean_run < 1.002
        assert best.mates_again < 0.4 and mixed.mates_again < 2 * best.mates_again
        if stored_mixed:
            assert abs(mixed.classes_per_batch - best.classes_per_batch) < 1.5 and mixed.mean_run < 1.002
        else:
            assert mixed.classes_per_batch > 0.75 * best.classes_per_batch and mixed.mean_run < 1.03
    none = mixing_of(np.arange(num_samples), np.arange(num_samples), by_class, batch)
    assert none.displacement == 0 and none.classes_per_batch < 3 and none.longest_run == 200
    assert none.mates_again == 255


GOLDEN = [20, 23, 16, 25, 26, 24, 22, 17, 21, 7, 6, 5, 13, 14, 15, 1, 2, 0, 18, 19, 28, 9, 8, 27, 12, 4, 10, 3, 11]
