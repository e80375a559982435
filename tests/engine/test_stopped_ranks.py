"""A signal to any rank or to torchrun: all ranks write one checkpoint and end within 10 s, and the bits stay."""

import signal
import time

import psutil
import pytest
from commands import TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from short_runs import outcome


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(torchrun(2, TRAIN, *short_options(image_folder, folder, epochs=5))).returncode == 0
    return outcome(folder / "ddp")


def _ranks_of(launcher):
    """The processes that torchrun started, in order of rank."""
    ranks = [child for child in psutil.Process(launcher.pid).children() if TRAIN in child.cmdline()]
    return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


def stopped_by(command, folder, to_rank, number):
    """Start, signal one rank (None: torchrun itself) in mid-epoch, and wait; what was said, and all the processes."""
    process = start(command)
    try:
        wait_for(folder / "ddp" / "checkpoints" / "step-00000008.pt", process)
        ranks = _ranks_of(process)
        assert len(ranks) == 2
        told = psutil.Process(process.pid) if to_rank is None else ranks[to_rank]
        started = time.monotonic()
        told.send_signal(number)
        _, alive = psutil.wait_procs(ranks, timeout=10)
        assert not alive, f"ranks went on for more than {time.monotonic() - started:.0f} s"
        output, _ = process.communicate(timeout=60)
        return output
    finally:
        if process.poll() is None:
            kill_all(process)


@pytest.mark.parametrize(
    ("to_rank", "number", "launcher_options"),
    [
        (1, signal.SIGUSR1, []),
        (None, signal.SIGTERM, []),
        pytest.param(0, signal.SIGTERM, [], marks=pytest.mark.long),
        pytest.param(None, signal.SIGINT, [], marks=pytest.mark.long),
        # torchrun hands on what it is told to hand on
        pytest.param(
            None, signal.SIGUSR1, ["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGUSR1"], marks=pytest.mark.long
        ),
        # and dies of what it is not: its ranks notice
        pytest.param(None, signal.SIGUSR1, [], marks=pytest.mark.long),
        pytest.param(None, signal.SIGKILL, [], marks=pytest.mark.long),
    ],
)
def test_a_signal_in_mid_epoch_stops_all_ranks_with_a_checkpoint(
    image_folder, tmp_path, expected, to_rank, number, launcher_options
):
    # by steps for the first eight alone, so that the last checkpoint is the signal's
    options = short_options(image_folder, tmp_path, epochs=5, **{"run.checkpoint-every-steps": 8})
    command = torchrun(2, TRAIN, *options)
    command[3:3] = launcher_options
    output = stopped_by(command, tmp_path, to_rank, number)
    assert "the same command goes on from there" in output
    checkpoints = tmp_path / "ddp" / "checkpoints"
    position = outcome(tmp_path / "ddp")["position"]
    assert position != [5, 0], "it had ended before"
    assert not list(checkpoints.glob("*.partial"))
    assert run(command).returncode == 0
    assert outcome(tmp_path / "ddp") == expected
