"""torchrun as people use it on machines that go away: ranks and launchers die, and the run goes on to the same bits."""

import contextlib
import socket
import sys
import time

import psutil
import pytest
from commands import TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from short_runs import outcome

MORE = {"run.checkpoint-every-steps": 4}
NUM_EPOCHS = 12


@pytest.fixture(scope="module")
def expected(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = run(torchrun(2, TRAIN, *short_options(image_folder, folder, epochs=NUM_EPOCHS, **MORE)))
    assert result.returncode == 0, result.stderr
    return outcome(folder / "ddp")


def _ranks_of(launcher):
    ranks = [child for child in psutil.Process(launcher.pid).children() if TRAIN in child.cmdline()]
    return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _started(command):
    process = start(command)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all(process)


@pytest.mark.parametrize("killed", [0, 1])
def test_max_restarts_goes_on_by_itself_after_a_rank_is_killed(image_folder, tmp_path, expected, measured, killed):
    command = torchrun(2, TRAIN, *short_options(image_folder, tmp_path, epochs=NUM_EPOCHS, **MORE))
    command[3:3] = ["--max-restarts=3"]
    checkpoints = tmp_path / "ddp" / "checkpoints"
    with _started(command) as process:
        for step in (8, 48):
            wait_for(checkpoints / f"step-{step:08d}.pt", process)
            _ranks_of(process)[killed].kill()
            time.sleep(1)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("going on in epoch") == 2, output
    assert outcome(tmp_path / "ddp") == expected
    measured["restarts"] = 2


def test_two_launchers_one_killed_and_restarted_end_with_the_same_bits(image_folder, tmp_path, expected, measured):
    """Each launcher stands for a machine with one rank. The first, where they meet, stays; the second is taken away."""
    endpoint = f"127.0.0.1:{_free_port()}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    launcher += ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=feedrate", "--local-addr=127.0.0.1"]
    command = [*launcher, TRAIN, *short_options(image_folder, tmp_path, epochs=NUM_EPOCHS, **MORE)]
    checkpoints = tmp_path / "ddp" / "checkpoints"
    with _started(command) as first:
        time.sleep(3)  # so that this one is where they meet
        with _started(command) as second:
            wait_for(checkpoints / "step-00000008.pt", first)
            kill_all(second)
            lost = time.monotonic()
        with _started(command) as second:
            outputs = [first.communicate(timeout=180)[0], second.communicate(timeout=60)[0]]
    assert first.returncode == 0 and second.returncode == 0, "\n".join(outputs)
    assert "going on in epoch" in "".join(outputs)
    assert outcome(tmp_path / "ddp") == expected
    measured["seconds_until_the_end"] = round(time.monotonic() - lost, 1)


def test_a_stopped_rank_is_noticed_by_the_others_and_nothing_is_left(image_folder, tmp_path, expected):
    """SIGSTOP: that rank cannot say anything, and SIGTERM does not reach it."""
    more = {**MORE, "run.hang-timeout-s": 4}
    command = torchrun(2, TRAIN, *short_options(image_folder, tmp_path, epochs=NUM_EPOCHS, **more))
    with _started(command) as process:
        wait_for(tmp_path / "ddp" / "checkpoints" / "step-00000008.pt", process)
        ranks = _ranks_of(process)
        ranks[1].suspend()
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Rank 1 is SILENT (stopped, dead or out of reach)" in output, output
    assert ".pt: the same command goes on from there" in output
    _, alive = psutil.wait_procs(ranks, timeout=5)
    assert not alive
    assert run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path, epochs=NUM_EPOCHS, **MORE))).returncode == 0
    assert outcome(tmp_path / "ddp") == expected


def test_a_run_that_was_suspended_and_woken_was_not_hanging(image_folder, tmp_path, expected):
    more = {**MORE, "run.hang-timeout-s": 3}
    command = torchrun(2, TRAIN, *short_options(image_folder, tmp_path, epochs=NUM_EPOCHS, **more))
    with _started(command) as process:
        wait_for(tmp_path / "ddp" / "checkpoints" / "step-00000008.pt", process)
        ranks = _ranks_of(process)
        for rank in ranks:
            rank.suspend()
        time.sleep(8)
        for rank in ranks:
            rank.resume()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert outcome(tmp_path / "ddp") == expected
