"""The README's commands run as written, with nothing but lighter settings put behind them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, TIMEOUT_S, environment

_LIGHTER = [
    *("--epochs", "1", "--model.name", "cifar_resnet20", "--data.batch-size", "8"),
    *("--data.size-px", "32", "--data.eval-size-px", "32", "--data.eval-resize-px", "36"),
    *("--execution.device", "cpu", "--execution.precision", "fp32", "--data.expected-classes", "3"),
]
_LIGHTER_PROFILE = ["--minutes", "0.02", "--rounds", "1"]


def _commands() -> list[str]:
    """The indented lines that start with python or torchrun, without their comments."""
    lines = re.findall(r"^    ((?:python|torchrun) .*)$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    return [line.split("#")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def checkout(image_folder, tmp_path_factory) -> Path:
    """A folder that looks like the repository's root, with data of its own."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "engine", "loaders", "converters", "configs"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / "data").mkdir()
    for name in ("imagenet", "cifar10"):
        (root / "data" / name).symlink_to(image_folder)
    (root / "data" / "photos").symlink_to(image_folder / "train")
    return root


def test_the_readme_opens_with_the_newcomers_two_commands():
    text = (REPOSITORY / "README.md").read_text().split("\n\n")
    assert [line.split()[:2] for line in text[1].splitlines()] == [["make", "demo"], ["make", "test"]]


def _is_packing(command: str) -> bool:
    return "tools/convert.py" in command


def test_the_commands_that_pack_run_one_after_the_other_as_written(checkout):
    """Some look at what others have packed."""
    commands = [command for command in _commands() if _is_packing(command)]
    assert len(commands) > 3
    for command in commands:
        _runs(checkout, command)


@pytest.mark.parametrize("command", [command for command in _commands() if not _is_packing(command)])
def test_a_command_of_the_readme_runs_as_written(checkout, command):
    _runs(checkout, command)


def _runs(checkout: Path, command: str) -> None:
    words = shlex.split(command)
    if "engine/train.py" in words:
        words += _LIGHTER
    elif "tools/profile.py" in words:
        words += _LIGHTER + _LIGHTER_PROFILE
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        words, cwd=checkout, env=environment(PATH=path), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.returncode == 0, (command, result.stderr)
