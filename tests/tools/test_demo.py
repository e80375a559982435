"""The demo: what it packs anew, and what `make clean` takes away again."""

import shlex
import subprocess

import pytest
from commands import REPOSITORY

from tools import demo


@pytest.fixture
def commands(monkeypatch):
    """The commands that the demo gives from now on; the first of them end with the statuses in `ends`."""

    class Given(list):
        ends = ()

    given = Given()

    def run(command):
        given.append(command)
        status = given.ends[len(given) - 1] if len(given) <= len(given.ends) else 0
        if status:
            raise subprocess.CalledProcessError(status, command)

    monkeypatch.setattr(demo, "run", run)
    return given


def test_what_is_packed_already_is_used_again(commands):
    demo.pack()
    assert len(commands) == 1 and "--overwrite" not in commands[0]


def test_a_set_that_another_version_packed_is_packed_anew(commands):
    commands.ends = (2,)
    demo.pack()
    assert commands[1] == [*commands[0], "--overwrite"] and len(commands) == 2


@pytest.mark.parametrize("ends", [(130,), (1,), (2, 2)])
def test_other_failures_of_packing_end_the_demo(commands, ends):
    commands.ends = ends
    with pytest.raises(subprocess.CalledProcessError) as caught:
        demo.pack()
    assert caught.value.returncode == ends[-1] and len(commands) == len(ends)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--quick"], ["again"]])
def test_words_start_nothing_and_remove_nothing(commands, monkeypatch, capsys, words):
    monkeypatch.setattr(demo, "train", lambda loader, interrupt: commands.append(["train"]))
    monkeypatch.setattr(demo, "profile", lambda loader: commands.append(["profile"]))
    monkeypatch.setattr(demo, "report", lambda seconds: None)
    monkeypatch.setattr(demo.os, "chdir", lambda path: None)
    if words[0] in ("--help", "-h"):
        assert demo.main(words) == 0
        assert "python tools/demo.py" in capsys.readouterr().out
    else:
        assert demo.main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and words[0] in told and told.count("\n") == 1
    assert commands == []
    assert demo.main([]) == 0 and len(commands) == 5  # pack, and train and profile with two loaders


def test_make_clean_takes_away_what_the_demo_makes_and_no_other_run():
    command = ["make", "-n", "--no-print-directory", "clean"]  # tests may be run by make themselves
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    removed = shlex.split(done.stdout)
    assert removed[:2] == ["rm", "-rf"] and not any(set(path) & set("*?[$~") for path in removed)
    runs = {path for path in removed if path.startswith(("runs", "data"))}
    expected = [demo.RUNS / f"demo-{loader}" for loader in demo.LOADERS] + [demo.RUNS / "demo.png", demo.DATA]
    assert runs == {*map(str, expected), f"{demo.DATA}-images"}


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert demo.last_step(metrics) == -1
    metrics.write_text('{"kind": "step", "step": 7}\n{"kind": "step", "st')
    assert demo.last_step(metrics) == 7


def test_who_interrupts_it_is_told_how_to_go_on(commands, monkeypatch, capsys):
    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    monkeypatch.setattr(demo.os, "chdir", lambda path: None)
    assert demo.main([]) == 130
    assert capsys.readouterr().err == "interrupted: `make demo` goes on with what is there\n"
