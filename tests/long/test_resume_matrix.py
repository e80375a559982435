"""The whole resume matrix, row by row; docs/benchmarks/long/ledger.jsonl says which passed on which code."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY
from resume_matrix import Row, check, rows

from loaders.choose import choose_loader
from loaders.errors import FeedrateError


@pytest.fixture(scope="module")
def packed(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `image_folder` as .beton, which every loader reads."""
    out = tmp_path_factory.mktemp("matrix") / "packed"
    tool = [sys.executable, "tools/convert.py", "imagenet", "--source", str(image_folder), "--out", str(out)]
    subprocess.run([*tool, "--to", "beton"], cwd=REPOSITORY, check=True)
    return out


@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_nothing_that_befalls_a_run_changes_its_bits(row: Row, packed: Path, tmp_path: Path, measured: dict) -> None:
    try:
        choose_loader(row.loader)
    except FeedrateError as error:
        pytest.skip(str(error))
    measured |= check(row, packed, tmp_path)
