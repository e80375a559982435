"""How the commands of tools/ end: one frame for all of them."""

import ast
import os
import subprocess
import sys

import pytest
from commands import REPOSITORY, TIMEOUT_S

from engine.safeguards.exit_status import exit_status
from loaders.errors import FeedrateError, LoaderError


def _raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize("status", [0, 1, 130])
def test_what_the_command_returns_is_its_status_and_nothing_is_said(status, capsys):
    assert exit_status(lambda: status, "lost", 3, lambda: "kept") == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "frame", "status", "told"),
    [
        (FeedrateError("no such file"), {}, 2, "error: no such file\n"),
        (LoaderError("sample 3"), {"rank": 1}, 2, "error (rank 1): sample 3\n"),
        (FeedrateError("no such file"), {"kept": lambda: "a is there"}, 2, "error: no such file; a is there\n"),
        (FeedrateError("no such file"), {"if_interrupted": "go on"}, 2, "error: no such file\n"),
        (KeyboardInterrupt(), {}, 130, "interrupted\n"),
        (KeyboardInterrupt(), {"rank": 1, "if_interrupted": "go on"}, 130, "interrupted: go on\n"),
        (KeyboardInterrupt(), {"if_interrupted": "go on", "kept": lambda: ""}, 130, "interrupted: go on\n"),
        (
            KeyboardInterrupt(),
            {"if_interrupted": "go on", "kept": lambda: "a is there"},
            130,
            "interrupted: a is there\n",
        ),
    ],
)
def test_bad_input_and_ctrl_c_are_a_sentence_and_a_status(error, frame, status, told, capsys):
    assert exit_status(_raising(error), **frame) == status
    assert capsys.readouterr() == ("", told)


def _exiting():
    print("the help")
    raise SystemExit(0)


def _printing():
    print("the answer")
    return 0


@pytest.mark.parametrize("command", [_exiting, _printing])
@pytest.mark.parametrize(("is_read", "status"), [(True, 120), (False, 141)])
def test_an_answer_that_cannot_be_printed_is_no_success(command, is_read, status, monkeypatch, capfd):
    nobody, mouth = os.pipe()
    os.close(nobody)
    with os.fdopen(os.open("/dev/full", os.O_WRONLY) if is_read else os.dup(mouth), "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert exit_status(command) == status
    os.close(mouth)
    told = capfd.readouterr().err
    assert ("is lost (No space left on device), and the command goes on" in told) == is_read and "Trace" not in told


@pytest.mark.parametrize("command", ["engine/train.py", "tools/find_batch_size.py"])
def test_so_is_help(command):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, REPOSITORY / command, "--help"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 120 and ended.stderr.count("\n") == 1, ended.stderr


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"):
        exit_status(_raising(ValueError("a bug")))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_every_command_ends_by_it_but_for_convert(path):
    """Whose frame is in converters/command.py."""
    tree = ast.parse(path.read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    if path.stem == "convert":
        assert not mains
        return
    called = {node.func.id for node in ast.walk(mains[0]) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
    assert "exit_status" in called
    caught = {ast.unparse(node.type) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type}
    assert "KeyboardInterrupt" not in caught
    returns = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert "return 2" not in returns, "bad input is a FeedrateError"
