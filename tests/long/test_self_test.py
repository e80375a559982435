"""The whole self-test of the profiler: every loader, seed and planted stage, some 1,000 cells.

They are measured, and kept in docs/benchmarks/long/self-test, as `tools/profile.py self-test --out` that folder does:
what it has measured on this very code is not measured again here, nor what is measured here there. The ledger beside it
says which loaders passed on which code, and what was found of each.
"""

import json
from io import StringIO
from pathlib import Path

import pytest
from commands import REPOSITORY
from rich.console import Console

from loaders.choose import choose_loader
from loaders.errors import FeedrateError
from tools.profiling import self_test

_OUT = REPOSITORY / "docs" / "benchmarks" / "long" / "self-test"
_TRIES = 3  # of cells that other programs disturbed


@pytest.mark.parametrize("loader", self_test.LOADERS)
def test_every_promise_is_kept_of_each_loader_alone(loader: str, tmp_path: Path, measured: dict) -> None:
    try:
        choose_loader(loader)
    except FeedrateError as error:
        pytest.skip(str(error))
    kept = ["--out", str(_OUT), "--data", str(REPOSITORY / "data" / "self-test")]
    for number in range(_TRIES):
        folder = tmp_path / str(number)  # of its report
        folder.mkdir()
        said = StringIO()
        status = self_test.run(["--loaders", loader, "--report", str(folder), *kept], Console(file=said, width=200))
        told = json.loads(next(folder.glob("*.json")).read_text())
        scores = told["scores"]
        if not any(scores["disturbed"].values()):
            break
    measured |= {promise["text"]: promise["found"] for promise in told["promises"]}
    measured |= {"left_out": told["left_out"], "wrong_cells": scores["wrong_cells"]}
    assert len(told["cells"]) == told["num_cells"]
    assert all(promise["kept"] for promise in told["promises"]), said.getvalue()
    assert status == 0
