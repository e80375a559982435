"""The always-on meter: how long the training loop waited for its batches, and how many images it trained on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from loaders.api import Batch


@dataclass(frozen=True)
class Reading:
    """What happened between two moments.

    seconds          wall time
    num_images       images handed out; padding does not count
    wait_s           time the loop stood still because no batch was ready
    first_batch_s    part of it spent on the first batch of an epoch: starting up, not keeping up
    """

    seconds: float
    num_images: int
    wait_s: float
    first_batch_s: float

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.seconds if self.seconds > 0 else 0.0

    @property
    def data_wait_share(self) -> float:
        """Waiting as a share of all time, 0-1."""
        return min(1.0, self.wait_s / self.seconds) if self.seconds > 0 else 0.0

    def since(self, earlier: "Reading") -> "Reading":
        """What happened after `earlier`, a reading of the same meter."""
        return Reading(
            self.seconds - earlier.seconds,
            self.num_images - earlier.num_images,
            self.wait_s - earlier.wait_s,
            self.first_batch_s - earlier.first_batch_s,
        )


class Meter:
    """Wraps a loader's iterator: two clock readings a batch, nothing else.

    On a GPU the host runs ahead of the device, and waiting for a batch overlaps computing until the device runs dry;
    the share is then an upper bound on what the data costs.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._num_images = 0
        self._wait_s = 0.0
        self._first_batch_s = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with the waiting for each noted."""
        is_first = True
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited = time.perf_counter() - asked
            self._wait_s += waited
            if is_first:
                self._first_batch_s += waited
                is_first = False
            if batch is None:
                return
            self._num_images += batch.num_valid
            yield batch

    def read(self) -> Reading:
        """Everything since the meter was made."""
        elapsed = time.perf_counter() - self._started
        return Reading(elapsed, self._num_images, self._wait_s, self._first_batch_s)
