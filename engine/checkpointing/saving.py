"""When a run's checkpoints and weights are written, and what is in them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..config import RunConfig
from ..dist import Ranks
from ..progress import Progress
from ..reporting.run_folder import RunFolder
from .best import Best
from .checkpoint import save_checkpoint
from .state import States, collect
from .weights import save_weights


@dataclass
class Saver:
    """Writes what a run leaves for going on and for use: the main rank writes, every rank must call.

    identity    what checkpoints are marked with
    about       what files of weights tell of themselves
    states      what a checkpoint keeps beside the position
    exported    modules whose weights are written as `<name>.safetensors` at the end, and as `<name>-best` in between
    best        one of `states`
    check       raises where what stands now must not be kept
    tell        hears what is being done
    """

    settings: RunConfig
    ranks: Ranks
    folder: RunFolder
    progress: Progress
    steps_per_epoch: int
    identity: dict[str, Any]
    about: dict[str, str]
    states: States
    exported: Callable[[], dict[str, nn.Module]]
    best: Best
    check: Callable[[], None] = field(default=lambda: None)
    tell: Callable[[str], None] = field(default=lambda stage: None)
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def num_steps(self) -> int:
        """How many steps the run has done."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.batch

    @property
    def is_due_by_time(self) -> bool:
        """Whether the time since the last checkpoint is up, by this rank's clock."""
        return time.monotonic() - self._saved_at >= self.settings.checkpoint_every_s

    @property
    def is_due_by_steps(self) -> bool:
        every = self.settings.checkpoint_every_steps
        return every > 0 and self.num_steps % every == 0

    def save(self) -> None:
        """A checkpoint of where the run stands. It is on the disk when this returns, on any rank.

        Raises FeedrateError on every rank where it could not be written.
        """
        self.check()
        self.tell("writing a checkpoint")
        content = {"identity": self.identity, "progress": self.progress.state(self.ranks), **collect(self.states)}
        kept, best = self.settings.checkpoints_kept, self.best.step

        def write() -> None:
            whole = {**content, "metrics_bytes": self.folder.metrics_bytes()}
            save_checkpoint(self.folder.checkpoints, self.num_steps, whole, kept, best)

        if self.settings.log_ids:
            self.ranks.together(lambda: self.folder.sync_ids(self.ranks.rank))
        self.ranks.on_main(write)
        self._saved_at = time.monotonic()

    def end_epoch(self, record: dict[str, Any], is_last: bool) -> None:
        """After an epoch, with its metrics record: note whether it is the best, and write what is due."""
        is_best = self.best.consider(record, self.num_steps)
        if is_best:
            # before the checkpoint: a run killed in between evaluates this epoch once more and writes them again
            self.save_weights(
                "-best", {"epoch": str(record["epoch"]), self.best.metric: repr(self.best.found["value"])}
            )
        every = self.settings.checkpoint_every_epochs
        if is_best or is_last or (every > 0 and self.progress.epoch % every == 0):
            self.save()
        if is_best:
            self.write_best()

    def write_best(self) -> None:
        """best.json, as the run knows the best now."""
        self.ranks.on_main(lambda: self.folder.write_best(self.best.found))

    def save_weights(self, suffix: str = "", more: dict[str, str] | None = None) -> None:
        """`<name><suffix>.safetensors` for each exported module; `more` is what these tell besides."""
        self.tell("writing weights")
        for name, module in self.exported().items():
            path = self.folder.path / f"{name}{suffix}.safetensors"
            self.ranks.on_main(lambda: save_weights(path, module.state_dict(), self.about | (more or {})))  # noqa: B023
