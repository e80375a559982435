"""The whole self-test of the profiler: every loader, seed and planted stage.

docs/benchmarks/long/ledger.jsonl says which cells passed on which code, and what was found in each.
"""

from pathlib import Path

import pytest

from engine.profiler.self_test.cells import KINDS, NOTHING, NUM_SEEDS, PLANTED, SIZES, matrix
from engine.profiler.self_test.planting import Effort
from engine.profiler.self_test.scores import judged, label, recovery
from loaders.choose import choose_loader
from loaders.errors import FeedrateError
from tools.profiling.self_test import LOADERS
from tools.profiling.self_test_runs import groups_of, run, write_images

_TRIES = 3  # of a cell that other programs disturbed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("self-test"))


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_planted_bottlenecks_are_found(
    seed: int, loader: str, planted: str, data: Path, tmp_path: Path, measured: dict
) -> None:
    """Every cell of a loader, a seed and a stage: nothing wrong named, above the slack the stage itself, and as much of
    the delay recovered as was planted."""
    try:
        choose_loader(loader)
    except FeedrateError as error:
        pytest.skip(str(error))
    cells = matrix([loader], [planted], KINDS, SIZES, [seed])
    found = {}
    for _ in range(_TRIES):
        missing = [cell for cell in cells if cell.key not in found or found[cell.key].is_disturbed]
        for group in groups_of(missing, data, "cpu", Effort()):
            found |= {outcome.cell.key: outcome for outcome in run(group, tmp_path / "log")}
    if all(outcome.note for outcome in found.values()):
        pytest.skip(next(iter(found.values())).note)
    measured |= {key: [label(one), judged(one), *map(round, recovery(one))] for key, one in found.items()}
    disturbed = [key for key, outcome in found.items() if outcome.is_disturbed]
    if disturbed:
        pytest.skip(f"other programs used the processors while {', '.join(disturbed)} were measured")
    assert len(found) == len(cells)
    for outcome in found.values():
        assert judged(outcome) != "wrong", f"{outcome.cell.key}: {label(outcome)}: {outcome.sentence}"
        if outcome.cell.size > 1:
            assert judged(outcome) == "right", f"{outcome.cell.key}: {label(outcome)}: {outcome.sentence}"
        if planted != NOTHING:
            injected, recovered = recovery(outcome)
            assert recovered == pytest.approx(injected, rel=0.15), outcome.cell.key
