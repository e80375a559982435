"""Several ranks over gloo, as real processes."""

import json
from pathlib import Path

import pytest
from commands import TRAIN, kill_group, python, run, start, torchrun, wait_for
from short_runs import outcome

LOSSES = str(Path(__file__).with_name("ddp_losses.py"))
RELATIVE_TOLERANCE = 1e-5  # float32 sums in another order, over 6 steps


def _options(images: Path, folder: Path, **more: object) -> list[str]:
    options = {
        "name": "ddp",
        "loader": "turbo",
        "epochs": 3,
        "data.path": images,
        "data.batch-size": 6,
        "data.eval-batch-size-per-rank": 5,
        "data.size-px": 16,
        "data.eval-size-px": 16,
        "data.eval-resize-px": 18,
        "data.workers": 1,
        "model.name": "cifar_resnet20",
        "optim.learning-rate": 0.05,
        "execution.device": "cpu",
        "execution.threads": 1,
        "run.folder": folder,
        "run.checkpoint-every-steps": 1,
        "run.checkpoints-kept": 100,
        **more,
    }
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


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
    whole = run(torchrun(3, TRAIN, *_options(image_folder, tmp_path / "whole")))
    assert whole.returncode == 0, whole.stderr
    expected = outcome(tmp_path / "whole" / "ddp")
    assert expected["position"] == [3, 0]

    command = torchrun(3, TRAIN, *_options(image_folder, tmp_path / "killed"))
    process = start(command)
    checkpoints = tmp_path / "killed" / "ddp" / "checkpoints"
    wait_for(checkpoints / "step-00000008.pt", process)  # 6 steps an epoch: in the middle of the second
    kill_group(process)
    assert not (checkpoints / "step-00000018.pt").exists(), "it ended before it could be killed"

    again = run(command)
    assert again.returncode == 0, again.stderr
    assert "going on in epoch" in again.stdout
    # two identical commands, batch statistics and all: the same ids, the same log, the same bits
    assert outcome(tmp_path / "killed" / "ddp") == expected


def test_a_world_size_that_cannot_share_the_batch_is_refused_by_a_sentence(image_folder, tmp_path):
    result = run(torchrun(2, TRAIN, *_options(image_folder, tmp_path, **{"data.batch-size": 7})))
    assert result.returncode != 0
    assert (
        "world size 2 does not divide the global batch of 7: use 1 or 7 ranks or a batch size of 6 or 8"
        in result.stderr
    )
