"""Which sample stands where, and how it is cut: a pure function of (seed, epoch, position).

Every loader executes the same plan, so they all deliver the same stream: the same ids in the same order with the same
rectangles and flips, for any number of threads, workers and ranks, from any position on.
"""

from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .counter_random import Draws
from .crops import MAX_SIDE_PX
from .errors import FeedrateError, whole_number
from .orders import BlockShuffled, Order, Sequential, Shuffled
from .sampling import SampledOrder, Sampling, ids_of
from .substitutes import Substitution
from .view import View

__all__ = [
    "PADDING_ID",
    "BlockShuffled",
    "Order",
    "Plan",
    "PlanRows",
    "Sampling",
    "Sequential",
    "Shard",
    "Shuffled",
    "View",
]

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

    widths, heights   int [N], the sizes in pixels of all stored samples
    sampling          which of them make an epoch, and how often; each once unless told
    """

    def __init__(
        self,
        widths: ArrayLike,
        heights: ArrayLike,
        order: Order,
        view: View,
        seed: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        self._widths = np.asarray(widths, dtype=np.int32)
        self._heights = np.asarray(heights, dtype=np.int32)
        if self._widths.ndim != 1 or self._widths.shape != self._heights.shape:
            raise FeedrateError(f"widths {self._widths.shape} and heights {self._heights.shape} must be two equal rows")
        wrong = (np.minimum(self._widths, self._heights) < 1) | (np.maximum(self._widths, self._heights) > MAX_SIDE_PX)
        if wrong.any():
            first = int(wrong.argmax())
            raise FeedrateError(
                f"sample {first} is {self._widths[first]}×{self._heights[first]} px: sides must lie within"
                f" 1 … {MAX_SIDE_PX} px, so leave it out"
            )
        self.order = order
        self.view = view
        self.seed = whole_number("seed", seed)
        self.sampling = sampling or Sampling()
        self._sampled = SampledOrder(order, self.sampling, len(self._widths))
        self._keys_of_epoch: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    @property
    def num_samples(self) -> int:
        """Samples stored, whether chosen or not."""
        return len(self._widths)

    @property
    def num_chosen(self) -> int:
        """Samples that may occur in an epoch."""
        return self._sampled.num_chosen

    def num_batches(self, world_size: int = 1) -> int:
        """Batches an epoch, equal on every rank. Refuses a world size that cannot share the batch."""
        return self._sampled.num_batches(world_size)

    def rows(self, epoch: int, batch: int, shard: Shard = Shard()) -> PlanRows:
        """What `shard` delivers as batch number `batch` of `epoch`, wherever it comes from: no walking there."""
        size = self._sampled.batch_size_per_rank(shard.world_size)
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
        ids = self._sampled.pick(draws(f"substitute {attempt}", position))
        return self._cut(ids, rows.epoch, rows.start + row)

    def window(self, batch: int) -> tuple[int, int] | None:
        """[first, stop): the batches made of the same blocks as `batch`, None where the order has no blocks."""
        return self._sampled.window(batch)

    def ids_in(self, epoch: int, batches: range, shard: Shard = Shard()) -> NDArray[np.int64]:
        """int64, ascending, each once: the samples that `shard` needs for these batches."""
        size = self._sampled.batch_size_per_rank(shard.world_size)
        starts = (np.arange(batches.start, batches.stop, batches.step) * shard.world_size + shard.rank) * size
        keys, positions = self._epoch_keys(epoch), (starts[:, None] + np.arange(size)).ravel()
        return np.unique(ids_of(keys[positions[positions < len(keys)]]))

    def span(self, epoch: int, start: int, stop: int) -> PlanRows:
        """Positions [start, stop) of the epoch's global order, cut short at its end."""
        return self._cut(self._epoch_keys(epoch)[start:stop], epoch, start)

    def _cut(self, keys: NDArray[np.int64], epoch: int, start: int) -> PlanRows:
        ids = ids_of(keys)  # an array of its own: where a sample is substituted, its id is written over
        rects = np.empty((len(ids), 4), dtype=np.int32)
        flips = np.empty(len(ids), dtype=np.bool_)
        draws = Draws(self.seed, epoch)
        flip_draws, turned = (Draws(self.seed, 0), bool(epoch % 2)) if self.view.flip_alternates else (draws, False)
        flip_below = np.uint64(round(self.view.flip_probability * 2**32))
        for first in range(0, len(ids), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            widths = self._widths[ids[part]].astype(np.int64)
            heights = self._heights[ids[part]].astype(np.int64)
            rects[part] = self.view.crop.rects(widths, heights, keys[part], draws)
            flips[part] = ((flip_draws("flip", keys[part]) >> np.uint64(32)) < flip_below) != turned
        return PlanRows(ids, rects, flips, self.view.size_at(epoch), self.view.fill, epoch, start)

    def identity(self) -> dict[str, Any]:
        """What fixes the stream, as JSON data: two plans with equal identities deliver the same stream."""
        sizes = sha256(self._widths.tobytes() + self._heights.tobytes()).hexdigest()
        sampling, plain = self.sampling.identity(), Sampling().identity()
        return {
            "num_samples": self.num_samples,
            "sizes_sha256": sizes,
            "seed": self.seed,
            "order": {"kind": type(self.order).__name__, **_fields(self.order)},
            "view": _view_fields(self.view),
            **({} if sampling == plain else {"sampling": sampling}),
        }

    def _epoch_keys(self, epoch: int) -> NDArray[np.int64]:
        """The epoch's order, as keys; the last two are kept, since a loader may run ahead into the next epoch.

        Loaders that share a plan may ask at the same time: what is found here is never looked up twice.
        """
        keys = self._keys_of_epoch.get(epoch)
        if keys is None:
            keys = self._keys_of_epoch[epoch] = self._sampled.keys(Draws(self.seed, epoch))
            while len(self._keys_of_epoch) > 2:
                self._keys_of_epoch.popitem(last=False)
        return keys


def _view_fields(view: View) -> dict[str, Any]:
    fields = {**_fields(view), "crop": {"kind": type(view.crop).__name__, **_fields(view.crop)}}
    if not view.flip_alternates:  # as identities were before there was such a setting
        del fields["flip_alternates"]
    return fields


def _fields(settings: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON data: tuples become lists, so that it equals itself after a round trip."""
    return {name: _as_json(value) for name, value in asdict(settings).items()}


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, tuple | list) else value
