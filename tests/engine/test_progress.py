import dataclasses
import json

import torch
from short_runs import ONE_RANK

from engine.progress import Progress
from loaders.api import Substitution

CPU = torch.device("cpu")


def _recorded(*batches):
    progress = Progress(CPU)
    for ids in batches:
        progress.record(torch.tensor(ids), torch.tensor(0.5), torch.tensor(1))
    return progress


def test_equal_digests_mean_the_same_ids_in_the_same_order():
    assert _recorded([1, 2], [3, 4]).ids_digest == _recorded([1, 2], [3, 4]).ids_digest
    others = [_recorded([2, 1], [3, 4]), _recorded([3, 4], [1, 2]), _recorded([1, 2]), _recorded([1, 2], [3, 5])]
    assert len({progress.ids_digest for progress in others} | {_recorded([1, 2], [3, 4]).ids_digest}) == 5


def test_sums_taken_up_in_mid_epoch_end_as_if_never_left():
    whole = _recorded([1, 2], [3, 4], [5, 6])
    half = _recorded([1, 2], [3, 4])
    taken_up = Progress(CPU)
    taken_up.restore(half.state(ONE_RANK), ONE_RANK)
    taken_up.record(torch.tensor([5, 6]), torch.tensor(0.5), torch.tensor(1))
    assert taken_up.state(ONE_RANK) == whole.state(ONE_RANK)
    assert taken_up.totals(ONE_RANK) == whole.totals(ONE_RANK)


def test_totals_weigh_batches_by_their_images():
    progress = Progress(CPU)
    progress.record(torch.tensor([1, 2, 3]), torch.tensor(1.0), torch.tensor(3))
    progress.record(torch.tensor([4]), torch.tensor(5.0), torch.tensor(0))
    totals = progress.totals(ONE_RANK)
    assert (totals["train_loss"], totals["train_top1"], totals["num_images"]) == (2.0, 0.75, 4)


def test_the_next_epoch_starts_at_nothing():
    progress = _recorded([1, 2])
    progress.next_epoch()
    assert progress.state(ONE_RANK) == {**Progress(CPU).state(ONE_RANK), "epoch": 1}


def _bad(*bad_ids):
    return tuple(Substitution(bad_id, bad_id + 100, f"sample {bad_id} is bad") for bad_id in bad_ids)


def _with_substitutions(*batches):
    progress = Progress(CPU)
    for bad_ids in batches:
        progress.record(torch.tensor([1, 2, 3]), torch.tensor(0.5), torch.tensor(1), _bad(*bad_ids))
    return progress


def test_substitutions_are_counted_by_row_and_listed_by_sample():
    progress = _with_substitutions([7, 5], [], [7])
    assert progress.totals(ONE_RANK)["num_substituted"] == 3
    assert progress.all_substitutions(ONE_RANK) == list(_bad(5, 7))
    progress.next_epoch()
    assert progress.num_substituted == 0 and progress.all_substitutions(ONE_RANK) == []


def test_substitutions_survive_a_checkpoint_and_another_number_of_ranks():
    half = _with_substitutions([7, 5], [9])
    assert json.loads(json.dumps(half.state(ONE_RANK))) == half.state(ONE_RANK)
    whole = Progress(CPU)
    whole.restore(half.state(ONE_RANK), ONE_RANK)
    whole.record(torch.tensor([1, 2, 3]), torch.tensor(0.5), torch.tensor(1), _bad(5))
    assert whole.state(ONE_RANK) == _with_substitutions([7, 5], [9], [5]).state(ONE_RANK)
    # of three ranks, the first of two takes up those of the first and the third
    of_three = {
        "epoch": 1,
        "batch": 2,
        "ranks": [_with_substitutions([n]).state(ONE_RANK)["ranks"][0] for n in (1, 2, 3)],
    }
    of_two = [Progress(CPU), Progress(CPU)]
    for rank, progress in enumerate(of_two):
        progress.restore(of_three, dataclasses.replace(ONE_RANK, rank=rank, world_size=2))
    assert [sorted(progress.substitutions) for progress in of_two] == [[1, 3], [2]]
    assert [progress.num_substituted for progress in of_two] == [2, 1]
