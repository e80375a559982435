"""The resume matrix: what may happen to a run, by a table; each row ends with the bits of a run that nothing befell.

`rows()` lists all of it. tests/long runs every row, tests/engine a fixed sample.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import resume_program
from commands import TRAIN, kill_all, run, short_options, started, torchrun, wait_for
from short_runs import outcome

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


class Matrix:
    """Lets things happen. What several rows of one loader, feature and number of ranks need is found out once, since
    most of a process is its start.

    situations  of CUTS, that are tried together when one of them is asked for
    """

    def __init__(self, images: Path, folder: Path, situations: Iterable[str] = tuple(CUTS)) -> None:
        self._images = images
        self._folder = folder
        self._situations = {name: CUTS[name] for name in situations if name in CUTS}
        self._ends: dict[Path, dict[str, list[bool]]] = {}
        self._whole: dict[Path, dict[str, Any]] = {}

    def check(self, row: Row) -> dict[str, object]:
        """Assert that nothing is lost. Returns what there is to note."""
        folder = self._folder / f"{row.loader}, {row.feature}, {row.num_ranks}"
        if row.situation in SIGNALS:
            return self._check_signal(row, folder)
        if folder not in self._ends:
            self._ends[folder] = self._ends_of_cuts(row, folder)
        ends = self._ends[folder][row.situation]
        assert ends == [True] * len(CUTS[row.situation]), f"{row}: {ends}"
        return {"resumed": sum(map(len, CUTS[row.situation])) or 1}

    def _ends_of_cuts(self, row: Row, folder: Path) -> dict[str, list[bool]]:
        """Of each situation, whether the run ended alike each time: one after the other in one process a rank."""
        wanted = {"options": self._options(row, folder, NUM_EPOCHS), "situations": self._situations}
        result = run(_command(row, resume_program.__file__, json.dumps(wanted)))
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout.strip().splitlines()[-1])["same"]

    def _check_signal(self, row: Row, folder: Path) -> dict[str, object]:
        """The processes of a real run get the signal: the launcher SIGTERM, or everything SIGKILL."""
        name, epochs = SIGNALS[row.situation], 4 * NUM_EPOCHS  # it must not be over before the signal comes
        options = self._options(row, folder, epochs)
        if folder not in self._whole:
            whole = run(_command(row, TRAIN, *options, "--name", "uncut"))
            assert whole.returncode == 0, whole.stderr
            self._whole[folder] = outcome(folder / "uncut")
        command = _command(row, TRAIN, *options, "--name", name)
        with started(command) as process:
            wait_for(folder / name / "checkpoints" / f"step-{STEPS_PER_EPOCH + 2:08d}.pt", process)
            if name == "SIGTERM":
                process.terminate()
                process.communicate(timeout=60)
            else:
                kill_all(process)
        at = outcome(folder / name)["position"]
        assert at != [epochs, 0], "it had ended before"
        again = run(command)
        assert again.returncode == 0, again.stderr
        assert outcome(folder / name) == self._whole[folder], str(row)
        return {"stopped_at": at}

    def _options(self, row: Row, folder: Path, epochs: int) -> list[str]:
        return short_options(self._images, folder, loader=row.loader, epochs=epochs, **FEATURES[row.feature])


def _command(row: Row, *words: str) -> list[str]:
    return torchrun(row.num_ranks, *words) if row.num_ranks > 1 else [sys.executable, *words]
