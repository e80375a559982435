"""Which sample stands where, and how it is cut: a pure function of (seed, epoch, position).

Every loader executes the same plan, so they all deliver the same stream: the same ids in the same order with the same
rectangles and flips, for any number of threads, workers and ranks, from any position on.
"""

from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .counter_random import Draws, below
from .crops import MAX_SIDE_PX, CenterCrop, Crop
from .errors import FeedrateError
from .substitutes import Substitution

PADDING_ID = -1
_ROWS_AT_ONCE = 1 << 16  # keeps the memory of planning a whole epoch at once bounded


@dataclass(frozen=True)
class Shard:
    """Which of `world_size` equal shares of every global batch is meant."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise FeedrateError(f"rank {self.rank} must be one of 0 … {self.world_size - 1}")


@dataclass(frozen=True)
class View:
    """How one stored sample becomes one image.

    `size_px` is the side of the square output, or a schedule of (first epoch, side) pairs, the first at epoch 0.
    `fill` is the value, per channel, of what a rectangle covers beyond the sample's border.
    """

    crop: Crop = CenterCrop()
    size_px: int | tuple[tuple[int, int], ...] = 224
    flip_probability: float = 0.0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        steps = self._schedule()
        starts = [start for start, _ in steps]
        if not steps or starts[0] != 0 or starts != sorted(set(starts)):
            raise FeedrateError(f"size schedule {self.size_px} must start at epoch 0 and go up")
        if any(not 0 < size <= MAX_SIDE_PX for _, size in steps):
            raise FeedrateError(f"size {self.size_px} must be 1 … {MAX_SIDE_PX} px")
        if not 0 <= self.flip_probability <= 1:
            raise FeedrateError(f"flip probability {self.flip_probability} must lie between 0 and 1")
        if any(not 0 <= value <= 255 for value in self.fill):
            raise FeedrateError(f"fill {self.fill} must be three values of 0 … 255")

    def size_at(self, epoch: int) -> int:
        """Side of the output in pixels in this epoch."""
        return [size for start, size in self._schedule() if start <= epoch][-1]

    def _schedule(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.size_px),) if isinstance(self.size_px, int) else self.size_px


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


@dataclass(frozen=True)
class Shuffled:
    """Training: every sample once an epoch in a fresh uniform order, less a remainder that differs each epoch."""

    global_batch_size: int

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise FeedrateError(f"batch size {self.global_batch_size} must be 1 or more")

    def batch_size_per_rank(self, world_size: int) -> int:
        batch = self.global_batch_size
        if batch % world_size:
            near = sorted((n for n in range(1, batch + 1) if batch % n == 0), key=lambda n: (abs(n - world_size), n))
            raise FeedrateError(
                f"world size {world_size} does not divide the global batch of {batch}: use {_either(near[:2])} ranks"
                f" or a batch size of {_either(_multiples_near(batch, world_size))}"
            )
        return batch // world_size

    def num_batches(self, num_samples: int, world_size: int) -> int:
        num_batches = num_samples // self.global_batch_size
        if num_batches == 0:
            raise FeedrateError(
                f"{num_samples} training samples do not fill one batch of {self.global_batch_size}:"
                f" use a batch size of at most {num_samples}"
            )
        return num_batches

    def ids(self, num_samples: int, draws: Draws) -> NDArray[np.int64]:
        keys = draws("order", np.arange(num_samples, dtype=np.int64))
        return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


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


@dataclass(frozen=True)
class PlanRows:
    """One rank's part of one global batch.

    ids     int64 [n], -1 where the row is padding
    rects   int32 [n, 4] of (left, top, width, height) in the sample's pixels; they may reach past its border
    flips   bool [n], mirror left to right after resizing
    size_px side of the square output
    fill    uint8 value per channel of what lies beyond the border
    epoch, start    the epoch, and row 0's position in its global order
    substitutions   what took the place of samples that cannot be delivered; whoever makes the pixels adds to it
    """

    ids: NDArray[np.int64]
    rects: NDArray[np.int32]
    flips: NDArray[np.bool_]
    size_px: int
    fill: tuple[int, int, int]
    epoch: int = 0
    start: int = 0
    substitutions: list[Substitution] = field(default_factory=list)

    @property
    def num_valid(self) -> int:
        """Rows [num_valid:] are padding."""
        return int(np.count_nonzero(self.ids != PADDING_ID))

    def one(self, row: int) -> "PlanRows":
        """Row number `row` alone."""
        part = slice(row, row + 1)
        return replace(self, ids=self.ids[part], rects=self.rects[part], flips=self.flips[part], start=self.start + row)

    def __len__(self) -> int:
        return len(self.ids)


class Plan:
    """The stream of samples of one split under one order and one view.

    widths, heights   int [N], the samples' sizes in pixels
    """

    def __init__(self, widths: ArrayLike, heights: ArrayLike, order: Order, view: View, seed: int = 0) -> None:
        self._widths = np.asarray(widths, dtype=np.int32)
        self._heights = np.asarray(heights, dtype=np.int32)
        if self._widths.ndim != 1 or self._widths.shape != self._heights.shape:
            raise FeedrateError(f"widths {self._widths.shape} and heights {self._heights.shape} must be two equal rows")
        for sides in (self._widths, self._heights):
            if len(sides) and not 1 <= sides.min() <= sides.max() <= MAX_SIDE_PX:
                raise FeedrateError(f"sides of {sides.min()} … {sides.max()} px must lie within 1 … {MAX_SIDE_PX} px")
        self.order = order
        self.view = view
        self.seed = seed
        self._ids_of_epoch: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    @property
    def num_samples(self) -> int:
        return len(self._widths)

    def num_batches(self, world_size: int = 1) -> int:
        """Batches an epoch, equal on every rank."""
        self.order.batch_size_per_rank(world_size)  # refuses a world size that cannot share the batch
        return self.order.num_batches(self.num_samples, world_size)

    def rows(self, epoch: int, batch: int, shard: Shard = Shard()) -> PlanRows:
        """What `shard` delivers as batch number `batch` of `epoch`, wherever it comes from: no walking there."""
        size = self.order.batch_size_per_rank(shard.world_size)
        start = (batch * shard.world_size + shard.rank) * size
        rows = self.span(epoch, start, start + size)
        missing = size - len(rows)
        if not missing:
            return rows
        return replace(
            rows,
            ids=np.concatenate([rows.ids, np.full(missing, PADDING_ID, dtype=np.int64)]),
            rects=np.concatenate([rows.rects, np.zeros((missing, 4), dtype=np.int32)]),
            flips=np.concatenate([rows.flips, np.zeros(missing, dtype=np.bool_)]),
        )

    def substitute(self, rows: PlanRows, row: int, attempt: int) -> PlanRows:
        """One row that may stand in `row`'s place: a sample drawn by position and attempt alone, cut as in its own."""
        draws = Draws(self.seed, rows.epoch)
        position = np.array([rows.start + row], dtype=np.int64)
        bits = draws(f"substitute {attempt}", position) >> np.uint64(32)
        ids = below(bits, np.array(self.num_samples, dtype=np.uint64)).astype(np.int64)
        return self._cut(ids, rows.epoch, rows.start + row)

    def span(self, epoch: int, start: int, stop: int) -> PlanRows:
        """Positions [start, stop) of the epoch's global order, cut short at its end."""
        # a copy: where a sample is substituted, its id is written over
        return self._cut(self._epoch_ids(epoch)[start:stop].copy(), epoch, start)

    def _cut(self, ids: NDArray[np.int64], epoch: int, start: int) -> PlanRows:
        rects = np.empty((len(ids), 4), dtype=np.int32)
        flips = np.empty(len(ids), dtype=np.bool_)
        draws = Draws(self.seed, epoch)
        flip_below = np.uint64(round(self.view.flip_probability * 2**32))
        for first in range(0, len(ids), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            chunk = ids[part]
            widths = self._widths[chunk].astype(np.int64)
            heights = self._heights[chunk].astype(np.int64)
            rects[part] = self.view.crop.rects(widths, heights, chunk, draws)
            flips[part] = (draws("flip", chunk) >> np.uint64(32)) < flip_below
        return PlanRows(ids, rects, flips, self.view.size_at(epoch), self.view.fill, epoch, start)

    def identity(self) -> dict[str, Any]:
        """What fixes the stream, as JSON data: two plans with equal identities deliver the same stream."""
        sizes = sha256(self._widths.tobytes() + self._heights.tobytes()).hexdigest()
        return {
            "num_samples": self.num_samples,
            "sizes_sha256": sizes,
            "seed": self.seed,
            "order": {"kind": type(self.order).__name__, **_fields(self.order)},
            "view": {**_fields(self.view), "crop": {"kind": type(self.view.crop).__name__, **_fields(self.view.crop)}},
        }

    def _epoch_ids(self, epoch: int) -> NDArray[np.int64]:
        """The epoch's order; the last two are kept, since a loader may run ahead into the next epoch.

        Loaders that share a plan may ask at the same time: what is found here is never looked up twice.
        """
        ids = self._ids_of_epoch.get(epoch)
        if ids is None:
            ids = self._ids_of_epoch[epoch] = self.order.ids(self.num_samples, Draws(self.seed, epoch))
            while len(self._ids_of_epoch) > 2:
                self._ids_of_epoch.popitem(last=False)
        return ids


def _fields(settings: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON data: tuples become lists, so that it equals itself after a round trip."""
    return {name: _as_json(value) for name, value in asdict(settings).items()}


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, tuple | list) else value


def _multiples_near(batch: int, world_size: int) -> list[int]:
    below = batch // world_size * world_size
    return [size for size in (below, below + world_size) if size > 0]


def _either(numbers: list[int]) -> str:
    return " or ".join(str(number) for number in numbers)
