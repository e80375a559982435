"""The resume matrix: what may happen to a run, by a table; each row ends with the bits of a run that nothing befell.

`rows()` lists all of it. tests/long runs every row, tests/engine a fixed sample.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands import REPOSITORY, TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from short_runs import outcome

PROGRAM = str(REPOSITORY / "tests" / "resume_program.py")
STEPS_PER_EPOCH, NUM_EPOCHS = 6, 3  # of 37 samples in batches of 6, which 1, 2 and 3 ranks share

LOADERS = ("torchvision", "turbo", "ffcv", "dali", "resident", "synthetic")
NUM_RANKS = (1, 2, 3)

# what befalls a run in one process (or one a rank): cut back to these checkpoints, one after the other
CUTS = {
    "mid-epoch at every batch": [[step] for step in range(1, 2 * STEPS_PER_EPOCH)],
    "epoch boundary": [[STEPS_PER_EPOCH], [2 * STEPS_PER_EPOCH]],
    "twice in one epoch": [[7, 9], [1, 2]],
    "another number of workers": [[4], [8]],
    "stopped in evaluation": [[]],
}
SIGNALS = {"after SIGTERM": "SIGTERM", "after SIGKILL": "SIGKILL"}
SITUATIONS = (*CUTS, *SIGNALS)

# settings of the command line beside the plain ones, by what they put into a run's state
FEATURES: dict[str, dict[str, object]] = {
    "plain": {},
    # four batches an update and six an epoch: windows of 4 and a ragged one of 2, cut in the middle of each
    "inside accumulation windows": {"optim.accumulate": 4},
    "with EMA": {"average.ema-decay": 0.9},
    "during SWA": {"average.swa-start-epoch": 1},
}


@dataclass(frozen=True)
class Row:
    """One cell of the matrix: a loader, a feature of training, a number of ranks, and what befalls the run."""

    loader: str
    feature: str
    num_ranks: int
    situation: str

    def __str__(self) -> str:
        return f"{self.loader}, {self.feature}, {self.num_ranks} ranks, {self.situation}"


def rows() -> Iterator[Row]:
    """Every loader with plain training, and every feature with one loader, in every situation on 1, 2 and 3 ranks."""
    for loader in LOADERS:
        for feature in FEATURES if loader == "turbo" else ("plain",):
            for num_ranks in NUM_RANKS:
                for situation in SITUATIONS:
                    yield Row(loader, feature, num_ranks, situation)


def check(row: Row, images: Path, folder: Path) -> dict[str, object]:
    """Let it happen, and assert that nothing is lost. Returns what there is to note."""
    is_signal = row.situation in SIGNALS
    # a signal needs a run that is not over before it comes
    epochs = 4 * NUM_EPOCHS if is_signal else NUM_EPOCHS
    options = short_options(images, folder, loader=row.loader, epochs=epochs, **FEATURES[row.feature])
    return _check_signal(row, options, folder) if is_signal else _check_cuts(row, options, folder)


def _check_cuts(row: Row, options: list[str], folder: Path) -> dict[str, object]:
    wanted = json.dumps({"options": options, "cuts": CUTS[row.situation], "situation": row.situation})
    command = [PROGRAM, wanted]
    result = run(torchrun(row.num_ranks, *command) if row.num_ranks > 1 else [sys.executable, *command])
    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads(result.stdout.strip().splitlines()[-1])
    assert told["same"] == [True] * len(CUTS[row.situation]), f"{row}: {told}"
    return {"resumed": sum(map(len, CUTS[row.situation])) or 1}


def _check_signal(row: Row, options: list[str], folder: Path) -> dict[str, object]:
    """The processes of a real run get the signal: the launcher SIGTERM, or everything SIGKILL."""

    def command(name: str) -> list[str]:
        arguments = [TRAIN, *options, "--name", name]
        return torchrun(row.num_ranks, *arguments) if row.num_ranks > 1 else [sys.executable, *arguments]

    whole = run(command("whole"))
    assert whole.returncode == 0, whole.stderr
    process = start(command("stopped"))
    checkpoints = folder / "stopped" / "checkpoints"
    wait_for(checkpoints / f"step-{STEPS_PER_EPOCH + 2:08d}.pt", process)
    if row.situation == "after SIGTERM":
        process.terminate()
        process.communicate(timeout=60)
    else:
        kill_all(process)
    at = outcome(folder / "stopped")["position"]
    assert at != [4 * NUM_EPOCHS, 0], "it had ended before"
    again = run(command("stopped"))
    assert again.returncode == 0, again.stderr
    assert outcome(folder / "stopped") == outcome(folder / "whole"), str(row)
    return {"stopped_at": at}
