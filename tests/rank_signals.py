"""Runs of two ranks that something befalls, as tests of engine/ and the long ones use them."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
from commands import TIMEOUT_S, TRAIN, run, short_options, started, torchrun, wait_for
from short_runs import outcome

NUM_EPOCHS = 10  # so long that a signal comes in time even where this process is held up
MID_EPOCH = 8  # a step in the second of epochs of six


def never_stopped(image_folder: Path, folder: Path) -> dict[str, Any]:
    """What comes out where nothing befalls the run."""
    assert run(torchrun(2, TRAIN, *short_options(image_folder, folder, epochs=NUM_EPOCHS))).returncode == 0
    return outcome(folder / "ddp")


def command_for(image_folder: Path, folder: Path, *launcher_options: str, **more: object) -> list[str]:
    """The command for that run, with a checkpoint by steps at the first `MID_EPOCH` and its multiples alone."""
    options = short_options(
        image_folder, folder, epochs=NUM_EPOCHS, **{"run.checkpoint-every-steps": MID_EPOCH, **more}
    )
    command = torchrun(2, TRAIN, *options)
    command[3:3] = launcher_options
    return command


def ranks_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a torchrun started, in order of rank."""
    ranks = [child for child in psutil.Process(launcher.pid).children() if TRAIN in child.cmdline()]
    return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


@contextlib.contextmanager
def in_mid_epoch(
    command: list[str], folder: Path, num_ranks: int = 2
) -> Generator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A launcher and its ranks as soon as the checkpoint of step `MID_EPOCH` is there."""
    with started(command) as process:
        wait_for(folder / "ddp" / "checkpoints" / f"step-{MID_EPOCH:08d}.pt", process)
        ranks = ranks_of(process)
        assert len(ranks) == num_ranks
        yield process, ranks


def stop_and_go_on(
    image_folder: Path,
    folder: Path,
    expected: dict[str, Any],
    to_rank: int | None,
    number: signal.Signals,
    launcher_options: tuple[str, ...] = (),
    within_s: float = 60.0,
) -> None:
    """Send a signal to one rank, or to torchrun itself (None), in mid-epoch: all ranks end within so many seconds, and
    the same command goes on to the expected bits."""
    command = command_for(image_folder, folder, *launcher_options)
    with in_mid_epoch(command, folder) as (process, ranks):
        told = psutil.Process(process.pid) if to_rank is None else ranks[to_rank]
        began = time.monotonic()
        told.send_signal(number)
        _, alive = psutil.wait_procs(ranks, timeout=within_s)
        assert not alive, f"ranks went on for more than {time.monotonic() - began:.0f} s"
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert "the same command goes on from there" in output
    position = outcome(folder / "ddp")["position"]
    assert position != [NUM_EPOCHS, 0], "it had ended before"
    assert not list((folder / "ddp" / "checkpoints").glob("*.partial"))
    assert run(command).returncode == 0
    assert outcome(folder / "ddp") == expected


def kill_ranks_under_max_restarts(
    image_folder: Path, folder: Path, expected: dict[str, Any], killed: int, num_kills: int
) -> None:
    """SIGKILL one rank again and again, each time in another epoch: torchrun starts all of them again, and the run goes
    on to the expected bits without a word from anybody."""
    command = command_for(image_folder, folder, f"--max-restarts={num_kills}")
    checkpoints = folder / "ddp" / "checkpoints"
    with started(command) as process:
        seen: list[psutil.Process] = []
        for number in range(1, num_kills + 1):
            wait_for(checkpoints / f"step-{number * MID_EPOCH:08d}.pt", process)
            ranks = ranks_of(process)
            assert len(ranks) == 2
            seen += ranks
            ranks[killed].kill()
            psutil.wait_procs(ranks, timeout=30)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, output
    assert output.count("going on in epoch") == num_kills, output
    assert len(set(seen)) == 2 * num_kills, "all ranks are started again, not the killed one alone"
    assert outcome(folder / "ddp") == expected
