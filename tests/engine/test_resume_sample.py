"""A fixed sample of the resume matrix; tests/long/test_resume_matrix.py runs all of it."""

from pathlib import Path

import pytest
from resume_matrix import Matrix, Row

SAMPLE = (
    Row("resident", "plain", 1, "mid-epoch at every batch"),
    Row("torchvision", "plain", 1, "another number of workers"),
    Row("turbo", "plain", 2, "stopped in evaluation"),
    Row("synthetic", "plain", 3, "twice in one epoch"),
    Row("turbo", "inside accumulation windows", 2, "mid-epoch at every batch"),
    Row("turbo", "during SWA", 1, "stopped in evaluation"),
    Row("turbo", "with EMA", 1, "twice in one epoch"),
)


@pytest.mark.parametrize("row", SAMPLE, ids=str)
def test_nothing_that_befalls_a_run_changes_its_bits(row: Row, image_folder: Path, tmp_path: Path) -> None:
    Matrix(image_folder, tmp_path, [row.situation]).check(row)
