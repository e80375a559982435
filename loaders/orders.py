"""Which sample stands at each position of an epoch, as a pure function of its draws."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .counter_random import Draws
from .errors import FeedrateError


class Order(Protocol):
    """Which sample stands at each position of an epoch. Implementations are frozen dataclasses."""

    def batch_size_per_rank(self, world_size: int) -> int:
        """Rows in each rank's part of a global batch."""
        ...

    def num_batches(self, num_samples: int, world_size: int) -> int:
        """Batches an epoch, equal on every rank."""
        ...

    def ids(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        """int64 [num_samples]: the sample at each position of this epoch."""
        ...

    def window(self, num_samples: int, batch: int) -> tuple[int, int] | None:
        """[first, stop): the batches made of the same blocks as `batch`, None where an order has no blocks."""
        ...


_Window = tuple[int, int] | None


@dataclass(frozen=True)
class Shuffled:
    """Training: every sample once an epoch in a fresh uniform order, less a remainder that differs each epoch."""

    global_batch_size: int

    def __post_init__(self) -> None:
        _refuse_no_batch(self.global_batch_size)

    def batch_size_per_rank(self, world_size: int) -> int:
        return _equal_share(self.global_batch_size, world_size)

    def num_batches(self, num_samples: int, world_size: int) -> int:
        return _full_batches(num_samples, self.global_batch_size)

    def ids(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        return _shuffled(draws("order", np.arange(num_samples, dtype=np.int64)))

    def window(self, num_samples: int, batch: int) -> _Window:
        return None


@dataclass(frozen=True)
class BlockShuffled:
    """Training on data larger than memory: as `Shuffled`, from large contiguous reads.

    Stored order is cut into blocks of `block_samples`, which are shuffled anew each epoch. The row of shuffled blocks
    is cut into `lanes` equal parts, so that all lanes end together; at most one block lies across each cut. A lane
    mixes the samples of about `blocks_mixed` blocks at a time (a window) and gives an equal part of every global batch.
    So the global order does not depend on the number of ranks, and where that divides `lanes`, each rank reads only
    its own lanes' blocks.
    """

    global_batch_size: int
    block_samples: int
    blocks_mixed: int = 64
    lanes: int = 8

    def __post_init__(self) -> None:
        _refuse_no_batch(self.global_batch_size)
        if self.block_samples < 1 or self.blocks_mixed < 1 or self.lanes < 1:
            raise FeedrateError(
                f"blocks of {self.block_samples} samples, {self.blocks_mixed} mixed at a time in {self.lanes} lanes:"
                " each number must be 1 or more"
            )
        if self.global_batch_size % self.lanes:
            raise FeedrateError(
                f"{self.lanes} lanes do not divide the batch of {self.global_batch_size}:"
                f" use a batch size of {_either(_multiples_near(self.global_batch_size, self.lanes))}, or other lanes"
            )

    def batch_size_per_rank(self, world_size: int) -> int:
        return _equal_share(self.global_batch_size, world_size)

    def num_batches(self, num_samples: int, world_size: int) -> int:
        return _full_batches(num_samples, self.global_batch_size)

    def ids(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        sequence = self._shuffled_blocks(num_samples, draws)
        per_lane = num_samples // self.lanes
        in_lanes = sequence[: per_lane * self.lanes]
        place = np.arange(per_lane, dtype=np.int64)
        num_batches = max(1, num_samples // self.global_batch_size)
        num_windows = self._num_windows(num_batches)
        batch = np.minimum(place // self._lane_rows, num_batches - 1)  # the last window takes the remainder, too
        window = batch * num_windows // num_batches
        # one sort of the whole epoch: by lane, then window, then 40 random bits
        mixed_with = (np.arange(self.lanes, dtype=np.int64)[:, None] * num_windows + window).ravel().astype(np.uint64)
        keys = (mixed_with << np.uint64(40)) | (draws("order", in_lanes) >> np.uint64(24))
        mixed = in_lanes[_shuffled(keys)].reshape(self.lanes, per_lane)
        full = per_lane // self._lane_rows * self._lane_rows
        batches = mixed[:, :full].reshape(self.lanes, -1, self._lane_rows).transpose(1, 0, 2)
        return np.concatenate([batches.ravel(), mixed[:, full:].ravel(), sequence[per_lane * self.lanes :]])

    def window(self, num_samples: int, batch: int) -> _Window:
        num_batches = max(1, num_samples // self.global_batch_size)
        num_windows = self._num_windows(num_batches)
        number = batch * num_windows // num_batches
        return -(-number * num_batches // num_windows), -(-(number + 1) * num_batches // num_windows)

    @property
    def _lane_rows(self) -> int:
        return self.global_batch_size // self.lanes

    def _num_windows(self, num_batches: int) -> int:
        """Windows of nearly equal length, none longer than the blocks to be mixed, or than one batch's part."""
        most = max(1, self.blocks_mixed * self.block_samples // self._lane_rows)
        return -(-num_batches // most)

    def _shuffled_blocks(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        """int64 [num_samples]: one shuffled block after the other, each in stored order."""
        starts = np.arange(0, num_samples, self.block_samples, dtype=np.int64)
        starts = starts[_shuffled(draws("block", np.arange(len(starts), dtype=np.int64)))]
        sizes = np.minimum(self.block_samples, num_samples - starts)
        before = np.cumsum(sizes) - sizes
        return np.repeat(starts - before, sizes) + np.arange(num_samples, dtype=np.int64)


@dataclass(frozen=True)
class Sequential:
    """Evaluation: every sample exactly once, in stored order, in batches of one fixed shape on any number of ranks.

    Batch number j holds the same samples whatever the world size, and ranks take batches in turn, so that each
    batch's results are the same to the bit for 1 rank and for 8. Rows beyond the last sample are padding.
    """

    rank_batch_size: int

    def __post_init__(self) -> None:
        if self.rank_batch_size < 1:
            raise FeedrateError(f"evaluation batch size {self.rank_batch_size} must be 1 or more")

    def batch_size_per_rank(self, world_size: int) -> int:
        return self.rank_batch_size

    def num_batches(self, num_samples: int, world_size: int) -> int:
        return -(-num_samples // (self.rank_batch_size * world_size))

    def ids(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        return np.arange(num_samples, dtype=np.int64)

    def window(self, num_samples: int, batch: int) -> _Window:
        return None


def _shuffled(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The positions in the order of their keys, int64."""
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def _refuse_no_batch(global_batch_size: int) -> None:
    if global_batch_size < 1:
        raise FeedrateError(f"batch size {global_batch_size} must be 1 or more")


def _equal_share(batch: int, world_size: int) -> int:
    """Rows a rank of a global batch, where they come out even."""
    if batch % world_size:
        near = sorted((n for n in range(1, batch + 1) if batch % n == 0), key=lambda n: (abs(n - world_size), n))
        raise FeedrateError(
            f"world size {world_size} does not divide the global batch of {batch}: use {_either(near[:2])} ranks"
            f" or a batch size of {_either(_multiples_near(batch, world_size))}"
        )
    return batch // world_size


def _full_batches(num_samples: int, global_batch_size: int) -> int:
    """Batches that are full; at least one must be."""
    if num_samples < global_batch_size:
        raise FeedrateError(
            f"{num_samples} training samples do not fill one batch of {global_batch_size}:"
            f" use a batch size of at most {num_samples}"
        )
    return num_samples // global_batch_size


def _multiples_near(batch: int, world_size: int) -> list[int]:
    below = batch // world_size * world_size
    return [size for size in (below, below + world_size) if size > 0]


def _either(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in numbers)
