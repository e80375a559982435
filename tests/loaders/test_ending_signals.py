"""Signals that end a command as Ctrl-C does."""

import signal
import subprocess
import sys

import pytest
from commands import REPOSITORY, TIMEOUT_S

from loaders.ending_signals import EndedBySignal, status_of

TIDYING = """
import os, signal, sys
sys.path[:0] = [sys.argv[1]]
from loaders.ending_signals import status_of, unwind_at_signals
number = int(sys.argv[2])
unwind_at_signals()
try:
    try:
        os.kill(os.getpid(), number)
        print("goes on")
    finally:
        os.kill(os.getpid(), number)
        print("tidied up", flush=True)
except KeyboardInterrupt as interrupt:
    sys.exit(status_of(interrupt))
"""


def _run(number: int, ignored: bool) -> tuple[int, str]:
    handler = signal.SIG_IGN if ignored else signal.SIG_DFL
    done = subprocess.run(
        [sys.executable, "-c", TIDYING, str(REPOSITORY), str(int(number))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        preexec_fn=lambda: signal.signal(number, handler),
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_unwinds_and_no_second_one_disturbs_that(number):
    assert _run(number, ignored=False) == (128 + number, "tidied up\n")


def test_a_signal_that_is_ignored_stays_so():
    assert _run(signal.SIGHUP, ignored=True) == (0, "goes on\ntidied up\n")


def test_the_status_tells_which_signal_it_was():
    assert status_of(KeyboardInterrupt()) == 130
    assert status_of(EndedBySignal(signal.SIGTERM)) == 143
