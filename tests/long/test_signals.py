"""The other ways in which a signal can reach a run of two ranks; two of them are in tests/engine."""

import signal

import pytest
from rank_signals import never_stopped, stop_and_go_on

pytestmark = pytest.mark.usefixtures("sighup_heeded")

HANDED_ON = ("--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGUSR1",)


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("to_rank", "number", "launcher_options"),
    [
        (0, signal.SIGTERM, ()),
        (None, signal.SIGINT, ()),
        (None, signal.SIGHUP, ()),
        (None, signal.SIGUSR1, HANDED_ON),
        (None, signal.SIGUSR1, ()),  # torchrun dies of what it was not told to hand on: its ranks notice
        (None, signal.SIGKILL, ()),
    ],
)
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(
    image_folder, tmp_path, expected, to_rank, number, launcher_options
):
    stop_and_go_on(image_folder, tmp_path, expected, to_rank, number, launcher_options, within_s=10)
