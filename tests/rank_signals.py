"""Runs of two ranks that a signal stops, as tests of engine/ and the long ones use them."""

import signal
import time
from pathlib import Path
from typing import Any

import psutil
from commands import TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from short_runs import outcome

NUM_EPOCHS = 5


def never_stopped(image_folder: Path, folder: Path) -> dict[str, Any]:
    """What comes out where nobody sends a signal."""
    assert run(torchrun(2, TRAIN, *short_options(image_folder, folder, epochs=NUM_EPOCHS))).returncode == 0
    return outcome(folder / "ddp")


def stop_and_go_on(
    image_folder: Path,
    folder: Path,
    expected: dict[str, Any],
    to_rank: int | None,
    number: signal.Signals,
    launcher_options: tuple[str, ...] = (),
) -> None:
    """Send a signal to one rank, or to torchrun itself (None), in mid-epoch: all ranks end within 10 s, and the same
    command goes on to the expected bits."""
    # by steps for the first eight alone, so that the last checkpoint is the signal's
    options = short_options(image_folder, folder, epochs=NUM_EPOCHS, **{"run.checkpoint-every-steps": 8})
    command = torchrun(2, TRAIN, *options)
    command[3:3] = launcher_options
    output = stopped_by(command, folder, to_rank, number)
    assert "the same command goes on from there" in output
    checkpoints = folder / "ddp" / "checkpoints"
    position = outcome(folder / "ddp")["position"]
    assert position != [NUM_EPOCHS, 0], "it had ended before"
    assert not list(checkpoints.glob("*.partial"))
    assert run(command).returncode == 0
    assert outcome(folder / "ddp") == expected


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
