"""A signal to any rank or to torchrun: all ranks write one checkpoint and end within 10 s, and the bits stay."""

import signal

import pytest
from rank_signals import never_stopped, stop_and_go_on


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("to_rank", "number"), [(1, signal.SIGUSR1), (None, signal.SIGTERM)])
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(image_folder, tmp_path, expected, to_rank, number):
    stop_and_go_on(image_folder, tmp_path, expected, to_rank, number)
