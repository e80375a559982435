"""Ctrl-C while a command still imports what it needs, which takes seconds."""

import signal
import subprocess
import sys

import pytest
from commands import REPOSITORY, TIMEOUT_S, TRAIN, environment

COMMANDS = [TRAIN, *sorted(str(path) for path in (REPOSITORY / "tools").glob("*.py"))]
# At the first import of one of these libraries the process sends itself a Ctrl-C. Who starts the tests may ignore it.
CTRL_C_WHILE_IMPORTING = """
import os, signal, sys, time

signal.signal(signal.SIGINT, signal.{at_first})

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch", "rich"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            print("went on", flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
"""


def interrupted(folder, command, at_first):
    """What becomes of the command: its exit status and all it says."""
    (folder / "sitecustomize.py").write_text(CTRL_C_WHILE_IMPORTING.format(at_first=at_first))
    ended = subprocess.run(
        [sys.executable, command, *(["schedule"] if command.endswith("plot.py") else [])],
        env=environment(PYTHONPATH=str(folder)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends_the_command_without_a_word(tmp_path, command):
    assert interrupted(tmp_path, command, "default_int_handler") == (128 + signal.SIGINT, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_where_it_is_ignored_it_stays_so(tmp_path, command):
    """As a shell ignores it for what runs in the background of a script."""
    assert interrupted(tmp_path, command, "SIG_IGN") == (0, "went on\n")
