"""Samples that cannot be delivered and are substituted: every loader takes the same others, and says so."""

import numpy as np
import pytest
from stored_samples import LOADERS, READING_LOADERS, for_each, plain_image

from loaders.api import Substitution
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError, LoaderError
from loaders.plan import Plan, Sequential, Shard, Shuffled, View
from loaders.substitutes import substitute

loaders_of_jpegs = for_each([case for case in READING_LOADERS if case.reads_jpegs])

SETS_OF_BAD = {"one": {17}, "some": {2, 13, 17, 31}, "many": {n for n in range(37) if n % 3 == 1}}
EPOCH = 2


def cut_short(jpeg: bytes) -> bytes:
    return jpeg[:150]


def expected_epoch(records, bad: set[int], shard: Shard = Shard(), order=None):
    """What the plan says must come: the rows of each batch, with substitutes in place."""
    plan = Plan(records.widths, records.heights, order or Shuffled(6), View(RandomResizedCrop(), 32, 0.5), 0)
    batches = []
    for number in range(plan.num_batches(shard.world_size)):
        rows = plan.rows(EPOCH, number, shard)
        for row in range(len(rows)):
            attempt = 0
            one = rows.one(row)
            while int(one.ids[0]) in bad:
                one = plan.substitute(rows, row, attempt)
                attempt += 1
            if attempt:
                rows.substitutions.append(Substitution(int(rows.ids[row]), int(one.ids[0]), ""))
                rows.ids[row], rows.rects[row], rows.flips[row] = one.ids[0], one.rects[0], one.flips[0]
        batches.append(rows)
    return batches


def pairs(substitutions) -> list[tuple[int, int]]:
    return sorted((entry.bad_id, entry.id) for entry in substitutions)


def check_epoch(loader, expected, records, case, start=0):
    num_seen = start
    for batch, rows in zip(loader.epoch(EPOCH, start), expected[start:], strict=True):
        num_seen += 1
        assert batch.ids.tolist() == rows.ids.tolist()
        assert batch.labels.tolist() == records.labels[rows.ids].tolist()
        assert pairs(batch.substitutions) == pairs(rows.substitutions)
        for entry in batch.substitutions:
            assert f"sample {entry.bad_id} " in entry.reason and records.where(entry.bad_id) in entry.reason
            assert "\n" not in entry.reason
        images = batch.images.permute(0, 2, 3, 1).numpy().astype(int)
        for row, index in enumerate(rows.ids.tolist()):
            plain = plain_image(records, index, rows.rects[row], rows.flips[row], 32, resize=case.resize)
            assert np.abs(images[row] - plain).max() <= case.tolerance
    assert num_seen == len(expected)


@loaders_of_jpegs
@pytest.mark.parametrize("which", SETS_OF_BAD)
def test_every_loader_takes_the_plans_substitutes(damaged, case, name, resize, which, open_one):
    bad = SETS_OF_BAD[which]
    records = damaged(dict.fromkeys(bad, cut_short))
    expected = expected_epoch(records, bad)
    assert sum(len(rows.substitutions) for rows in expected) >= len(bad) - 1  # one may be in the remainder
    loader = open_one(records, name, resize, order=Shuffled(6), on_bad="substitute")
    check_epoch(loader, expected, records, case)
    check_epoch(loader, expected, records, case, start=3)  # the same from the middle on
    check_epoch(loader, expected, records, case)  # and once more


@loaders_of_jpegs
def test_substitutes_do_not_depend_on_workers_batches_ahead_or_ranks(damaged, case, name, resize, open_one):
    bad = SETS_OF_BAD["many"]
    records = damaged(dict.fromkeys(bad, cut_short))
    for num_workers, num_ahead, world_size in ((1, 1, 1), (3, 4, 1), (2, 2, 2), (1, 3, 3)):
        whole = []
        for rank in range(world_size):
            shard = Shard(rank, world_size)
            options = {"num_workers": num_workers, "num_ahead": num_ahead, "shard": shard}
            loader = open_one(records, name, resize, order=Shuffled(6), on_bad="substitute", **options)
            check_epoch(loader, expected_epoch(records, bad, shard), records, case)
            whole += [pair for batch in loader.epoch(EPOCH) for pair in pairs(batch.substitutions)]
        everyone = expected_epoch(records, bad)
        assert sorted(whole) == sorted(pair for rows in everyone for pair in pairs(rows.substitutions))


@loaders_of_jpegs
def test_more_than_the_budget_is_an_error(damaged, name, resize, open_one):
    bad = SETS_OF_BAD["many"]
    records = damaged(dict.fromkeys(bad, cut_short))
    counts = [len(rows.substitutions) for rows in expected_epoch(records, bad)]
    within = open_one(records, name, resize, order=Shuffled(6), on_bad="substitute", max_bad=sum(counts))
    assert sum(len(batch.substitutions) for batch in within.epoch(EPOCH)) == sum(counts)

    budget = sum(counts[:3])
    loader = open_one(records, name, resize, order=Shuffled(6), on_bad="substitute", max_bad=budget)
    batches = loader.epoch(EPOCH)
    for count in counts[:3]:
        assert len(next(batches).substitutions) == count
    with pytest.raises(LoaderError, match=f"more than the {budget} that were allowed") as caught:
        for _ in batches:
            pass
    assert "cannot be delivered" in str(caught.value)
    with pytest.raises(LoaderError, match="more than the"):
        next(batches)  # stays failed
    assert len(next(loader.epoch(EPOCH)).ids) == 6  # each epoch has its own budget


@loaders_of_jpegs
def test_without_permission_nothing_is_substituted(damaged, name, resize, open_one):
    records = damaged({17: cut_short})
    with pytest.raises(LoaderError, match="sample 17 .*; --data.on-bad substitute trains on another .*: verify in"):
        list(open_one(records, name, resize, order=Shuffled(37)).epoch(0))


# not where all is packed as .beton: every third sample is stored raw there and cannot be damaged
@for_each([case for case in READING_LOADERS if case.reads_jpegs and case.kinds[0] != "beton"])
def test_where_all_samples_are_bad_it_is_an_error_and_no_endless_search(damaged, name, resize, open_one):
    records = damaged(dict.fromkeys(range(37), cut_short))
    loader = open_one(records, name, resize, order=Shuffled(6), on_bad="substitute")
    with pytest.raises(LoaderError, match="cannot be delivered") as caught:
        next(loader.epoch(0))
    assert "--data.on-bad" not in str(caught.value)  # which it is already


@for_each(LOADERS)
def test_evaluation_never_substitutes(samples, name, resize, open_one):
    with pytest.raises(FeedrateError, match="evaluation counts every sample"):
        open_one(samples, name, resize, order=Sequential(8), on_bad="substitute")


def test_attempts_end_and_the_first_error_is_the_one_raised(folder):
    plan = Plan(folder.widths, folder.heights, Shuffled(6), View(RandomResizedCrop(), 32, 0.5), 0)
    rows = plan.rows(0, 0)
    tried = []

    def deliver(one):
        tried.append(int(one.ids[0]))
        raise LoaderError("also bad")

    first = LoaderError("bad")
    with pytest.raises(LoaderError) as caught:
        substitute(plan, rows, 2, first, deliver)
    assert caught.value is first
    assert len(tried) == 16 and len(set(tried)) > 8  # draws of 37, so a few twice
    assert not rows.substitutions
    assert rows.ids.tolist() == plan.rows(0, 0).ids.tolist()
