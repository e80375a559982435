"""torchrun as people use it on machines that go away: ranks and launchers die, and the run goes on to the same bits.

One killed rank is in tests/engine.
"""

import contextlib
import socket
import sys
import time

import psutil
import pytest
from commands import TIMEOUT_S, TRAIN, kill_all, run, short_options, started, wait_for
from rank_signals import (
    MID_EPOCH,
    NUM_EPOCHS,
    command_for,
    in_mid_epoch,
    kill_ranks_under_max_restarts,
    never_stopped,
    ranks_of,
)
from short_runs import outcome

NOT_SHARED = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    return never_stopped(image_folder, tmp_path_factory.mktemp("whole"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _node(image_folder, folder, port):
    """The command of one of two machines with a rank each; they meet at the one that is started first."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=feedrate"]
    options = short_options(image_folder, folder, epochs=NUM_EPOCHS, **{"run.checkpoint-every-steps": MID_EPOCH})
    return [*launcher, "--local-addr=127.0.0.1", TRAIN, *options]


def _wait_until_it_listens(port):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at port {port}")


@contextlib.contextmanager
def _two_machines(image_folder, folder):
    """Two launchers in mid-epoch, the first of which holds the store where launchers meet; and the command of both."""
    port = _free_port()
    command = _node(image_folder, folder, port)
    with started(command) as first:
        _wait_until_it_listens(port)
        with started(command) as second:
            wait_for(folder / "ddp" / "checkpoints" / f"step-{MID_EPOCH:08d}.pt", first)
            yield first, second, command


def test_max_restarts_goes_on_by_itself_after_a_rank_is_killed_twice(image_folder, tmp_path, expected, measured):
    kill_ranks_under_max_restarts(image_folder, tmp_path, expected, killed=1, num_kills=2)
    measured["restarts"] = 2


def test_two_launchers_one_killed_and_restarted_end_with_the_same_bits(
    image_folder, tmp_path, expected, measured, monkeypatch
):
    """The second machine is taken away, and comes back: the first, where launchers meet, waits for it."""
    monkeypatch.setenv(NOT_SHARED, "1")
    with _two_machines(image_folder, tmp_path) as (first, second, command):
        kill_all(second)
        lost = time.monotonic()
        with started(command) as again:
            outputs = [first.communicate(timeout=TIMEOUT_S)[0], again.communicate(timeout=60)[0]]
    assert first.returncode == 0 and again.returncode == 0, "\n".join(outputs)
    assert sum(output.count("going on in epoch") for output in outputs) == 1, "\n".join(outputs)
    assert outcome(tmp_path / "ddp") == expected
    measured["seconds_until_the_end"] = round(time.monotonic() - lost, 1)


def test_where_the_launcher_is_lost_at_which_all_meet_the_others_end_and_both_commands_go_on(
    image_folder, tmp_path, expected, measured, monkeypatch
):
    monkeypatch.setenv(NOT_SHARED, "1")
    with _two_machines(image_folder, tmp_path) as (first, second, command):
        rank = ranks_of(second)
        kill_all(first)
        lost = time.monotonic()
        output, _ = second.communicate(timeout=TIMEOUT_S)
        measured["seconds_until_the_other_ended"] = round(time.monotonic() - lost, 1)
        assert second.returncode != 0
        assert "the same command goes on from the newest checkpoint" in output, output
        assert not psutil.wait_procs(rank, timeout=10)[1]
        with started(command) as one, started(command) as two:
            outputs = [one.communicate(timeout=TIMEOUT_S)[0], two.communicate(timeout=60)[0]]
    assert one.returncode == 0 and two.returncode == 0, "\n".join(outputs)
    assert outcome(tmp_path / "ddp") == expected


def test_a_stopped_rank_is_noticed_by_the_others_and_nothing_is_left(image_folder, tmp_path, expected, measured):
    """SIGSTOP: that rank cannot say anything, and SIGTERM does not reach it."""
    silent = command_for(image_folder, tmp_path, "--shutdown-timeout=2", **{"run.hang-timeout-s": 15})
    with in_mid_epoch(silent, tmp_path) as (process, ranks):
        ranks[1].suspend()
        stopped = time.monotonic()
        output, _ = process.communicate(timeout=TIMEOUT_S)
        measured["seconds_until_all_ended"] = round(time.monotonic() - stopped, 1)
    assert process.returncode != 0
    assert "Rank 1 is SILENT (stopped, dead or out of reach)" in output, output
    assert ".pt: the same command goes on from there" in output
    assert not psutil.wait_procs(ranks, timeout=10)[1]
    assert run(command_for(image_folder, tmp_path)).returncode == 0
    assert outcome(tmp_path / "ddp") == expected


def test_a_run_that_was_suspended_and_woken_was_not_hanging(image_folder, tmp_path, expected, measured):
    command = command_for(image_folder, tmp_path, **{"run.hang-timeout-s": 15})
    with in_mid_epoch(command, tmp_path) as (process, ranks):
        for rank in ranks:
            rank.suspend()
        time.sleep(25)
        measured["seconds_suspended"] = 25
        for rank in ranks:
            rank.resume()
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert outcome(tmp_path / "ddp") == expected
