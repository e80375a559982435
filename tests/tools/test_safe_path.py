"""Commands that are started from anywhere, also by a Python that puts no folder of theirs on its path."""

import subprocess
import sys

import pytest
from commands import REPOSITORY, TIMEOUT_S, environment


@pytest.mark.parametrize("command", sorted((REPOSITORY / "tools").glob("*.py")), ids=lambda path: path.name)
def test_a_command_finds_its_packages_with_a_safe_path(tmp_path, command):
    ended = subprocess.run(
        [sys.executable, "-P", str(command), "--help"],
        env=environment(PYTHONPATH=""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert command.name in ended.stdout
