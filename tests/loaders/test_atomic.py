"""A file is complete under its name, or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loaders.atomic import atomic_file

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_file_appears_when_its_block_has_ended(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_older_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_killed_process_leaves_the_older_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = (
        "import os, signal; from loaders.atomic import atomic_file\n"
        f"with atomic_file({str(path)!r}) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == -9
    assert path.read_bytes() == b"old"
    with atomic_file(path) as file:  # what the killed one left is no obstacle
        file.write(b"new")
    assert path.read_bytes() == b"new"
