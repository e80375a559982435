"""1,003 pictures evaluated by 2 to 8 real processes: the integers are those of one."""

import json
from pathlib import Path

import pytest
from commands import REPOSITORY, python, run, torchrun

EVALUATE_COUNTS = str(Path(REPOSITORY) / "tests" / "engine" / "evaluate_counts.py")


@pytest.fixture(scope="module")
def of_one():
    alone = python(EVALUATE_COUNTS)
    assert alone.returncode == 0, alone.stderr
    counts = json.loads(alone.stdout.strip().splitlines()[-1])
    assert counts["num_samples"] == 1003
    return counts


@pytest.mark.parametrize("num_ranks", range(2, 9))
def test_so_many_processes_count_what_one_does(of_one, num_ranks):
    together = run(torchrun(num_ranks, EVALUATE_COUNTS))
    assert together.returncode == 0, together.stderr
    assert json.loads(together.stdout.strip().splitlines()[-1]) == of_one
