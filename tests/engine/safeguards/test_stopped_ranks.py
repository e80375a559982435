"""Ranks that are signalled, killed or stopped: the others end or start again with them, and the bits stay."""

import signal

import psutil
import pytest
from commands import TIMEOUT_S, run
from rank_signals import command_for, in_mid_epoch, kill_ranks_under_max_restarts, never_stopped, stop_and_go_on
from short_runs import outcome


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("to_rank", "number"), [(1, signal.SIGUSR1), (None, signal.SIGTERM)])
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(image_folder, tmp_path, expected, to_rank, number):
    stop_and_go_on(image_folder, tmp_path, expected, to_rank, number)


def test_max_restarts_goes_on_by_itself_after_a_rank_is_killed(image_folder, tmp_path, expected):
    kill_ranks_under_max_restarts(image_folder, tmp_path, expected, killed=0, num_kills=1)


def test_a_stopped_rank_is_noticed_by_the_others_and_nothing_is_left(image_folder, tmp_path, expected):
    """SIGSTOP: that rank cannot say anything, and SIGTERM does not reach it."""
    silent = command_for(image_folder, tmp_path, "--shutdown-timeout=2", **{"run.hang-timeout-s": 4})
    with in_mid_epoch(silent, tmp_path) as (process, ranks):
        ranks[1].suspend()
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert "Rank 1 is SILENT (stopped, dead or out of reach)" in output, output
    assert ".pt: the same command goes on from there" in output
    assert not psutil.wait_procs(ranks, timeout=10)[1]
    assert run(command_for(image_folder, tmp_path)).returncode == 0
    assert outcome(tmp_path / "ddp") == expected
