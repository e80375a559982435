"""Ranks that are signalled or killed: the others end, or start again with them, and the bits stay."""

import signal

import pytest
from rank_signals import kill_ranks_under_max_restarts, never_stopped, stop_and_go_on


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("to_rank", "number"), [(1, signal.SIGUSR1), (None, signal.SIGTERM)])
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(image_folder, tmp_path, expected, to_rank, number):
    stop_and_go_on(image_folder, tmp_path, expected, to_rank, number)


def test_max_restarts_goes_on_by_itself_after_a_rank_is_killed(image_folder, tmp_path, expected):
    kill_ranks_under_max_restarts(image_folder, tmp_path, expected, killed=0, num_kills=1)
