"""Ranks that are signalled, killed or fail: the others end, or start again with them, and the bits stay."""

import signal
import sys

import pytest
from commands import REPOSITORY, TIMEOUT_S, short_options, started, torchrun
from rank_signals import command_for, kill_ranks_under_max_restarts, never_stopped, stop_and_go_on


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("to_rank", "number"), [(1, signal.SIGUSR1), (None, signal.SIGTERM)])
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(image_folder, tmp_path, expected, to_rank, number):
    stop_and_go_on(image_folder, tmp_path, expected, to_rank, number)


def test_max_restarts_goes_on_by_itself_after_a_rank_is_killed(image_folder, tmp_path, expected):
    kill_ranks_under_max_restarts(image_folder, tmp_path, expected, killed=0, num_kills=1)


@pytest.mark.parametrize(
    ("error", "told", "status"),
    [
        ("a sentence", "error (rank 1): sample 7 is broken\n", 2),
        ("a bug", "Traceback (most recent call last)", 1),
    ],
)
def test_a_rank_that_fails_ends_though_it_could_not_leave_the_others(
    image_folder, tmp_path, monkeypatch, error, told, status
):
    monkeypatch.setenv("FEEDRATE_TEST_ERROR", error)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    with started(command_for(image_folder, tmp_path, loader="failing_loader:FailingLoader")) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1  # torchrun's own
    assert told in output
    assert f"exitcode  : {status}" in output
    assert ("this is a bug" in output) == (error == "a bug")


@pytest.mark.parametrize("words", [["find_lr.py", "--updates", "12"], ["profile.py", "--minutes", "0.02"]])
def test_so_it_does_in_the_finder_and_in_a_profile(image_folder, tmp_path, monkeypatch, words):
    monkeypatch.setenv("FEEDRATE_TEST_ERROR", "a sentence")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    program, *words = words
    options = short_options(image_folder, tmp_path, loader="failing_loader:FailingLoader")
    # deaf to SIGTERM, or torchrun might end the other rank by it before that can say why it ends by itself
    deaf = ["--no-python", "sh", "-c", 'trap "" TERM; exec "$0" "$@"', sys.executable]
    command = torchrun(2, *deaf, str(REPOSITORY / "tools" / program), *words, *options)
    with started(command) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert "sample 7 is broken" in output and "another rank is gone" in output
    assert "in run_and_end" not in output  # torchrun's own traceback is there
    assert "exitcode  : 2" in output
