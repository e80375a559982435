"""Which batches make one update together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """Gradient accumulation: every `accumulate` batches of an epoch make one update, fewer the last of an epoch.

    A step is a batch, numbered over the whole run; an update is a window, numbered likewise. The learning rate's
    schedule counts updates: a run that accumulates N batches moves as one whose batch is N times as large.
    """

    steps_per_epoch: int = 1
    accumulate: int = 1

    @property
    def updates_per_epoch(self) -> int:
        return -(-self.steps_per_epoch // self.accumulate)

    def update_of(self, step: int) -> int:
        """Number of the update that this step belongs to."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch * self.updates_per_epoch + batch // self.accumulate

    def left_at(self, step: int) -> int:
        """Batches of this step's window from this one on; 1 at the last, after which the weights move."""
        batch = step % self.steps_per_epoch
        return min(self.accumulate - batch % self.accumulate, self.steps_per_epoch - batch)

    def closes_at(self, step: int) -> bool:
        """Whether this step is the last of its window."""
        return self.left_at(step) == 1
