"""tools/setup.sh on commands of the test's own: where uv cannot be had it ends at once, and packages get compiled."""

import shutil
import subprocess
from pathlib import Path

import pytest
from commands import REPOSITORY


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The script, and a PATH (`commands`) with little on it: no uv, no apt-get."""
    (tmp_path / "tools").mkdir()
    shutil.copy(REPOSITORY / "tools" / "setup.sh", tmp_path / "tools")
    (tmp_path / "commands").mkdir()
    for name in ("bash", "dirname", "mkdir", "cp"):
        (tmp_path / "commands" / name).symlink_to(shutil.which(name))
    return tmp_path


def ended(checkout: Path) -> tuple[list[str], str]:
    """The lines on standard error of a setup that must fail, and what its log holds."""
    command = [str(checkout / "commands" / "bash"), "tools/setup.sh"]
    path = {"PATH": str(checkout / "commands")}
    done = subprocess.run(command, cwd=checkout, env=path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout, done
    assert not (checkout / ".venv").exists()
    return done.stderr.splitlines(), (checkout / ".venv-setup.log").read_text()


def test_without_ensurepip_and_apt_it_says_which_package_it_needs(checkout):
    script(checkout / "commands" / "python3", 'echo "No module named ensurepip" >&2', "exit 1")
    said, log = ended(checkout)
    assert said[-1].startswith("needs the packages python3-venv") and "No module named ensurepip" in log
    assert len(said) == 2


def test_a_venv_that_fails_is_said_with_the_place_of_its_reason(checkout):
    script(checkout / "commands" / "python3", '[ "$1" = -c ] && exit 0', 'echo "no room for $3"', "exit 1")
    said, log = ended(checkout)
    assert said[1:] == ["python3 -m venv failed: see .venv-setup.log"] and "no room for .venv-uv" in log


def test_a_uv_that_pip_cannot_install_is_said_with_the_place_of_its_reason(checkout):
    script(checkout / "pip", 'echo "no network for $*" >&2', "exit 1")
    made = 'mkdir -p "$3/bin" && cp pip "$3/bin/python"'
    script(checkout / "commands" / "python3", '[ "$1" = -c ] && exit 0', made)
    said, log = ended(checkout)
    assert said[1:] == ["pip could not install uv: see .venv-setup.log, or put uv on the PATH"]
    assert "no network for -m pip install" in log


@pytest.mark.parametrize(("forbids", "times"), [("", 0), ("1", 1)])
def test_where_python_may_not_write_bytecode_the_packages_are_compiled(checkout, forbids, times):
    for name in ("python3", "uv"):
        script(checkout / "commands" / name, "exit 0")
    script(checkout / ".venv" / "bin" / "python", 'echo "$*" >>asked')
    environment = {"PATH": str(checkout / "commands"), "PYTHONDONTWRITEBYTECODE": forbids}
    subprocess.run([checkout / "commands" / "bash", "tools/setup.sh"], cwd=checkout, env=environment, check=True)
    asked = (checkout / "asked").read_text().splitlines()
    assert asked.count("-m compileall -q -j 0 .venv/lib") == times
