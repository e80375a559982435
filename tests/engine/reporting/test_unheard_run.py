"""A run that nobody hears any more: a full disk behind `>`, a reader or a terminal that is gone."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from commands import TIMEOUT_S, TRAIN, environment, nothing_left, short_options, wait_for
from short_runs import outcome

from engine.train import main

pytestmark = pytest.mark.usefixtures("sighup_heeded")

TOLD = "warning: what is printed from here on is lost ({}), and the command goes on\n"


@pytest.fixture
def expected(image_folder, tmp_path):
    assert main(short_options(image_folder, tmp_path / "heard")) == 0
    return outcome(tmp_path / "heard" / "ddp")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("why", ["No space left on device", "Broken pipe"])
def test_it_trains_to_the_same_end_and_says_once_what_is_lost(image_folder, tmp_path, expected, why, unbuffered):
    if why == "Broken pipe":
        nobody, mouth = os.pipe()
        os.close(nobody)
    elif Path("/dev/full").exists():
        mouth = os.open("/dev/full", os.O_WRONLY)
    else:
        pytest.skip("/dev/full is missing")
    with os.fdopen(mouth, "wb") as stdout:
        ended = subprocess.run(
            [sys.executable, TRAIN, *short_options(image_folder, tmp_path / "unheard")],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            text=True,
            timeout=TIMEOUT_S,
        )
    assert (ended.returncode, ended.stderr) == (0, TOLD.format(why))
    assert outcome(tmp_path / "unheard" / "ddp") == expected


@pytest.mark.parametrize("loader", ["turbo", "torchvision"])
def test_a_terminal_that_is_closed_in_mid_epoch_leaves_a_checkpoint(image_folder, tmp_path, loader):
    """SIGHUP comes to all of the terminal's processes, and what they print from then on fails."""
    words = short_options(image_folder, tmp_path, loader=loader, epochs=500, **{"run.checkpoint-every-epochs": 500})
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, TRAIN, *words, "--run.checkpoint-every-steps", "0", "--run.best-metric", "none"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(TERM="xterm"),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    with nothing_left(process):
        is_over = threading.Event()
        reader = threading.Thread(target=_read, args=(screen, is_over))
        reader.start()
        wait_for(tmp_path / "ddp" / "metrics.jsonl", process)
        is_over.set()
        reader.join()
        os.close(screen)
        assert process.wait(timeout=TIMEOUT_S) == 128 + signal.SIGHUP
    assert len(list((tmp_path / "ddp" / "checkpoints").glob("*.pt"))) == 1


def _read(screen: int, is_over: threading.Event) -> None:
    """As a terminal does, which never keeps those waiting who write to it."""
    os.set_blocking(screen, False)
    while not is_over.wait(0.005):
        with contextlib.suppress(OSError):  # nothing there yet
            os.read(screen, 65536)


def test_under_nohup_it_trains_on_after_the_terminal_is_gone(image_folder, tmp_path):
    words = short_options(image_folder, tmp_path, epochs=5)
    process = subprocess.Popen(
        ["nohup", sys.executable, TRAIN, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        text=True,
    )
    with nothing_left(process):
        wait_for(tmp_path / "ddp" / "checkpoints" / "step-00000005.pt", process)
        process.send_signal(signal.SIGHUP)
        told, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0 and "done: " in told, told
