"""Running the commands as a user does: real processes, their exit status and what they print."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN = str(REPOSITORY / "engine" / "train.py")
TIMEOUT_S = 900  # for whatever hangs: a machine may be many times slower than usual


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without a torchrun's words, and with one thread for every library."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}


def python(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end."""
    return run([sys.executable, *arguments], cwd)


def torchrun(num_ranks: int, *arguments: str) -> list[str]:
    """The command that runs ARGUMENTS on that many ranks of this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", *arguments]


def run(command: list[str], cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Where that takes too long, or the tests are interrupted, nothing that it started is
    left: `subprocess.run` would end torchrun alone, and leave its ranks."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with nothing_left(subprocess.Popen(command, cwd=cwd, env=environment(), text=True, **pipes)) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command, its output kept for `communicate`."""
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def started(command: list[str]) -> Generator[subprocess.Popen[str]]:
    """The same for a block, which it does not outlive."""
    with nothing_left(start(command)) as process:
        yield process


@contextlib.contextmanager
def nothing_left(process: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """A process that, with all it started, does not outlive the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all(process)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as `path` exists; fail if the process ends or the time is up before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        if process.poll() is not None:
            raise AssertionError(f"ended before {path.name} was there:\n{process.stdout.read()}")
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.002)


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the process and all it started, as when a machine is taken away.

    One by one: each rank of a torchrun is in a session of its own, so no group holds them all.
    """
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()


def short_options(images: Path, folder: Path, **more: object) -> list[str]:
    """Options of engine/train.py for three epochs of six steps on the `image_folder` fixture."""
    options = {
        "name": "ddp",
        "loader": "turbo",
        "epochs": 3,
        "data.path": images,
        "data.batch-size": 6,
        "data.eval-batch-size-per-rank": 5,
        "data.size-px": 16,
        "data.eval-size-px": 16,
        "data.eval-resize-px": 18,
        "data.workers": 1,
        "model.name": "cifar_resnet20",
        "optim.learning-rate": 0.05,
        "execution.device": "cpu",
        "execution.threads": 1,
        "run.folder": folder,
        "run.checkpoint-every-steps": 1,
        "run.checkpoints-kept": 100,
        **more,
    }
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]
