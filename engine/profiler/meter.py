"""The always-on meter: how long the training loop waited for its batches, and how many images it trained on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loaders.api import Batch


@dataclass(frozen=True)
class Reading:
    """What happened between two moments.

    seconds          wall time
    num_images       images handed out; padding does not count
    wait_s           time the loop stood still because no batch was ready
    first_batch_s    part of it spent on the first batch of an epoch: starting up, not keeping up
    first_step_s     what the host then did until it asked for the second batch: in a run's first epoch, warming up and
                     compiling
    num_first_images images of first batches
    step_s           what the step took by its own clock
    """

    seconds: float
    num_images: int
    wait_s: float
    first_batch_s: float
    first_step_s: float = 0.0
    num_first_images: int = 0
    step_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.seconds if self.seconds > 0 else 0.0

    @property
    def steady_images_per_s(self) -> float | None:
        """Without the first batch and the first step; None where there was no other."""
        seconds = self.seconds - self.first_batch_s - self.first_step_s
        num_images = self.num_images - self.num_first_images
        return num_images / seconds if num_images > 0 and seconds > 0 else None

    @property
    def data_wait_share(self) -> float:
        """Waiting as a share of all time, 0-1. Where a GPU worked on steps meanwhile, nothing was lost by it."""
        return lost_by_waiting_s(self.seconds, self.wait_s, self.step_s) / self.seconds if self.seconds > 0 else 0.0

    @property
    def steady_data_wait_share(self) -> float | None:
        """The same without the first batch and the first step; None where there was no other."""
        seconds = self.seconds - self.first_batch_s - self.first_step_s
        if self.num_images == self.num_first_images or seconds <= 0:
            return None
        step_s = max(0.0, self.step_s - self.first_step_s)
        return lost_by_waiting_s(seconds, self.wait_s - self.first_batch_s, step_s) / seconds

    def figures(self, world_size: int) -> dict[str, float | None]:
        """Times on this rank, and images a second on so many that do alike, as they are logged. None but for `seconds`
        where nothing was trained on, as in an epoch that is taken up after its last batch."""
        steady = self.steady_images_per_s
        if not self.num_images:
            names = ("images_per_s", "steady_images_per_s", "data_wait_share", "first_batch_s", "first_step_s")
            return {"seconds": self.seconds, **dict.fromkeys(names)}
        return {
            "seconds": self.seconds,
            "images_per_s": self.images_per_s * world_size,
            "steady_images_per_s": None if steady is None else steady * world_size,
            "data_wait_share": self.data_wait_share,
            "first_batch_s": self.first_batch_s,
            "first_step_s": self.first_step_s,
        }

    def since(self, earlier: "Reading") -> "Reading":
        """What happened after `earlier`, a reading of the same meter."""
        return Reading(
            self.seconds - earlier.seconds,
            self.num_images - earlier.num_images,
            self.wait_s - earlier.wait_s,
            self.first_batch_s - earlier.first_batch_s,
            self.first_step_s - earlier.first_step_s,
            self.num_first_images - earlier.num_first_images,
            self.step_s - earlier.step_s,
        )


def lost_by_waiting_s(seconds: float, wait_s: float, step_s: float) -> float:
    """Of `seconds`, what waiting for batches cost: ahead of a GPU the host may wait while steps are computed."""
    return max(0.0, min(wait_s, seconds - step_s))


class Meter:
    """Wraps a loader's iterator: two clock readings a batch, nothing else.

    step_s  what steps took so far, by their own clock
    """

    def __init__(self, step_s: Callable[[], float] = lambda: 0.0) -> None:
        self._step_s = step_s
        self._step_before_s = step_s()
        self._started = time.perf_counter()
        self._num_images = 0
        self._wait_s = 0.0
        self._first_batch_s = 0.0
        self._first_step_s = 0.0
        self._num_first_images = 0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with the waiting for each noted."""
        number, handed_out = 0, 0.0
        while True:
            asked = time.perf_counter()
            if number == 1:
                self._first_step_s += asked - handed_out
            batch = next(batches, None)
            waited = time.perf_counter() - asked
            self._wait_s += waited
            if number == 0:
                self._first_batch_s += waited
                self._num_first_images += 0 if batch is None else batch.num_valid
            if batch is None:
                return
            self._num_images += batch.num_valid
            number += 1
            handed_out = time.perf_counter()
            yield batch

    def read(self) -> Reading:
        """Everything since the meter was made."""
        elapsed = time.perf_counter() - self._started
        return Reading(
            elapsed,
            self._num_images,
            self._wait_s,
            self._first_batch_s,
            self._first_step_s,
            self._num_first_images,
            self._step_s() - self._step_before_s,
        )
