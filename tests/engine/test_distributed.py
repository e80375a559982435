"""Several ranks over gloo, as real processes."""

import json
from pathlib import Path

import pytest
from commands import TRAIN, kill_all, python, run, short_options, started, torchrun, wait_for
from short_runs import outcome

LOSSES = str(Path(__file__).with_name("ddp_losses.py"))
RELATIVE_TOLERANCE = 1e-5  # float32 sums in another order, over 6 steps


def test_two_ranks_without_batch_statistics_give_one_ranks_losses_on_the_same_ids(image_folder):
    alone = python(LOSSES, str(image_folder))
    assert alone.returncode == 0, alone.stderr
    together = run(torchrun(2, LOSSES, str(image_folder)))
    assert together.returncode == 0, together.stderr
    one, two = (json.loads(result.stdout.strip().splitlines()[-1]) for result in (alone, together))
    assert one["ids"] == two["ids"]
    assert len(one["losses"]) == 6
    assert two["losses"] == pytest.approx(one["losses"], rel=RELATIVE_TOLERANCE)


def test_three_ranks_killed_in_mid_epoch_end_with_the_bits_of_a_run_never_killed(image_folder, tmp_path):
    # long beside the time in which the kill must come; from the second epoch on some layers rest, until the sixth
    resting = ["--optim.frozen-epochs", "blocks.[0-2].*", "1", "5"]
    whole = run(torchrun(3, TRAIN, *short_options(image_folder, tmp_path / "whole", epochs=8), *resting))
    assert whole.returncode == 0, whole.stderr
    expected = outcome(tmp_path / "whole" / "ddp")
    assert expected["position"] == [8, 0]

    command = torchrun(3, TRAIN, *short_options(image_folder, tmp_path / "killed", epochs=8), *resting)
    checkpoints = tmp_path / "killed" / "ddp" / "checkpoints"
    with started(command) as process:
        wait_for(checkpoints / "step-00000008.pt", process)  # 6 steps an epoch: in the middle of the second
        kill_all(process)
    assert not (checkpoints / "step-00000048.pt").exists(), "it ended before it could be killed"

    again = run(command)
    assert again.returncode == 0, again.stderr
    assert "going on in epoch" in again.stdout
    # two identical commands, batch statistics and all: the same ids, the same log, the same bits
    assert outcome(tmp_path / "killed" / "ddp") == expected


def test_a_world_size_that_cannot_share_the_batch_is_refused_by_a_sentence(image_folder, tmp_path):
    result = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path, **{"data.batch-size": 7})))
    assert result.returncode != 0
    assert (
        "world size 2 does not divide the global batch of 7: use 1 or 7 ranks or a batch size of 6 or 8"
        in result.stderr
    )
