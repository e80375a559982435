"""Runs killed by SIGKILL at many moments, on 1, 2 and 3 ranks, end with the bits of a run that was never killed."""

import random
import time

import pytest
from commands import TRAIN, kill_all, run, short_options, started, torchrun, wait_for
from killed_writers import kill_writers
from short_runs import outcome

NUM_KILLS = 5


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("loader", ["torchvision", "turbo"])
def test_a_run_killed_again_and_again_ends_with_the_bits_of_one_never_killed(
    image_folder, tmp_path, measured, num_ranks, loader
):
    def command(name):
        return torchrun(num_ranks, TRAIN, *short_options(image_folder, tmp_path / name, loader=loader, epochs=6))

    assert run(command("whole")).returncode == 0
    expected = outcome(tmp_path / "whole" / "ddp")
    moments = random.Random(num_ranks)
    kills = 0
    for _ in range(NUM_KILLS):
        with started(command("killed")) as process:
            folder = tmp_path / "killed" / "ddp" / "checkpoints"
            reached = len(list(folder.glob("step-*.pt")))
            wait_for(folder / f"step-{min(36, reached + 1):08d}.pt", process)
            time.sleep(moments.uniform(0, 0.3))  # also while a checkpoint is being written
            if process.poll() is not None:
                break
            kill_all(process)
        kills += 1
    assert run(command("killed")).returncode == 0
    assert outcome(tmp_path / "killed" / "ddp") == expected
    measured["kills"] = kills


def test_200_kills_while_checkpoints_are_written_always_leave_a_whole_one(tmp_path, measured):
    result = kill_writers(tmp_path, num_kills=200, seed=0)
    measured |= result
    assert result["left"]["unfinished .pt"] > 10 and result["left"]["nothing unfinished"] > 10
