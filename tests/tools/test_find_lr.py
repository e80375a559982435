"""`tools/find_lr.py` as a user calls it."""

import json

import pytest
from commands import REPOSITORY, python, run, short_options, torchrun

from tools import find_lr

FIND_LR = str(REPOSITORY / "tools" / "find_lr.py")
_FEW = ("--updates", "12", "--lowest-rate", "1e-4", "--highest-rate", "0.01")


def test_it_writes_a_picture_and_the_numbers_and_trains_nothing(image_folder, tmp_path):
    done = python(FIND_LR, *_FEW, *short_options(image_folder, tmp_path / "runs"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "ddp"
    assert [path.name for path in folder.iterdir()] == ["lr-finder"]
    assert (folder / "lr-finder" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((folder / "lr-finder" / "sweep.json").read_text())
    assert len(content["rates"]) == len(content["losses"]) == len(content["smoothed"]) == 12
    assert content["rates"][0] == pytest.approx(1e-4) and content["rates"][-1] == pytest.approx(0.01)
    assert "12 updates; it went on to its end, 0.01" in done.stdout
    assert ("suggested: between" in done.stdout) == (content["suggestion"] is not None)


def test_ranks_sweep_together_and_one_writes(image_folder, tmp_path):
    done = run(torchrun(2, FIND_LR, *_FEW, *short_options(image_folder, tmp_path / "runs")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 updates; ") == 1
    assert (tmp_path / "runs" / "ddp" / "lr-finder" / "sweep.json").is_file()


def test_where_there_are_no_data_no_rank_says_that_another_is_gone(tmp_path):
    done = run(torchrun(2, FIND_LR, *_FEW, *short_options(tmp_path / "nope", tmp_path / "runs")))
    assert done.returncode != 0
    assert "nope does not exist" in done.stderr and "another rank is gone" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--updates", "3"], "error: --updates is 3: it must be 10 or more"),
        (["--lowest-rate", "0"], "error: --lowest-rate is 0.0: it must be above 0"),
        (["--smoothing-updates", "0"], "error: --smoothing-updates is 0: it must be 1 or more"),
        (["--update", "30"], "unknown option --update: did you mean --updates"),
        (["--growth", "cubic"], "invalid choice: 'cubic'"),
        (["--loader", "turbi"], "turbo"),
    ],
)
def test_a_bad_word_gives_one_sentence_and_status_2(arguments, message, capsys):
    assert find_lr.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_folder_that_cannot_be_written_costs_no_suggestion_and_is_one_sentence(image_folder, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    done = python(FIND_LR, *_FEW, *short_options(image_folder, tmp_path / "runs"), cwd=tmp_path)
    assert done.returncode == 2
    assert "12 updates; it went on to its end" in done.stdout and "sugges" in done.stdout
    assert done.stderr.startswith("error: ") and "--out" not in done.stderr
    told = "sweep.png cannot be written (Not a directory): free some space or permit it, or give another --run.folder"
    assert done.stderr.splitlines()[-1].endswith(told)
