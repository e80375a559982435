"""Random numbers for the rows of a batch, and their way to the device.

A draw depends on (seed, step, sample id, name of the draw) and on nothing else, so it is the same for any number of
ranks, any place of the sample in its batch, and after any interruption. Where a sample stands in a batch more than once
(repeats, views), its second row has draws of its own; rows of one sample on different ranks share theirs.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loaders.counter_random import Draws, below
from loaders.sampling import keys_in_batch
from loaders.transfer import send

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SampleDraws:
    """The draws of a batch: every method gives one value a row, the same for the same name and the row's key."""

    def __init__(self, draws: Draws, keys: Ints) -> None:
        self._draws = draws
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def bits(self, name: str) -> NDArray[np.uint64]:
        """uint64 [B], uniform."""
        return self._draws(f"augment {name}", self._keys)

    def uniform(self, name: str) -> Floats:
        """float64 [B], above 0 and below 1."""
        return ((self.bits(name) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def between(self, low: float, high: float, name: str) -> Floats:
        """float64 [B] from `low` to `high`."""
        return low + (high - low) * self.uniform(name)

    def below(self, bound: int, name: str) -> Ints:
        """int64 [B], 0 … bound - 1."""
        return below(self.bits(name) >> np.uint64(32), np.array(bound, dtype=np.uint64)).astype(np.int64)

    def shared(self) -> "SampleDraws":
        """Draws that do not depend on the ids: every row has the same value, on every rank."""
        return SampleDraws(self._draws, np.zeros_like(self._keys))


def draws_of(seed: int, step: int, ids: Ints) -> SampleDraws:
    """The draws for int64 [B] ids at a global step."""
    return SampleDraws(Draws(seed, step), keys_in_batch(ids))


def on_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """`values` as a tensor on the device, by a copy that the host does not wait for."""
    return send(torch.from_numpy(np.ascontiguousarray(values)), device)
