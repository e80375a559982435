"""The whole resume matrix, row by row; docs/benchmarks/long/ledger.jsonl says which passed on which code."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY
from resume_matrix import Matrix, Row, rows

from loaders.choose import choose_loader
from loaders.errors import FeedrateError


@pytest.fixture(scope="module")
def matrix(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """On the `image_folder` as .beton, which every loader reads."""
    out = tmp_path_factory.mktemp("matrix") / "packed"
    tool = [sys.executable, "tools/convert.py", "imagenet", "--source", str(image_folder), "--out", str(out)]
    subprocess.run([*tool, "--to", "beton"], cwd=REPOSITORY, check=True)
    return Matrix(out, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_nothing_that_befalls_a_run_changes_its_bits(row: Row, matrix: Matrix, measured: dict) -> None:
    try:
        choose_loader(row.loader)
    except FeedrateError as error:
        pytest.skip(str(error))
    measured |= matrix.check(row)
