"""Which of the stored samples make an epoch, and how often each stands in it.

A sample that occurs more than once in an epoch gets another crop and flip each time: what draws hash is its key,
`id + (occurrence << 48)`, and the first occurrence's key is the id itself.
"""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counter_random import Draws, below, below_64
from .errors import FeedrateError
from .orders import BlockShuffled, Order, Sequential, Shuffled

_OCCURRENCE_SHIFT = 48
_MAX_OCCURRENCES = 1 << 15  # a sample that occurs more often in one epoch has the first ones' crops again

Ids = NDArray[np.int64]


def ids_of(keys: Ids) -> Ids:
    """The samples that these keys belong to, int64."""
    return keys & np.int64((1 << _OCCURRENCE_SHIFT) - 1)


def keys_in_batch(ids: Ids) -> Ids:
    """Keys for draws that belong to the rows of one batch: a sample's second row gets another than its first."""
    return ids + _shifted(_times_before(ids))


@dataclass(frozen=True, eq=False)
class Sampling:
    """How an epoch is drawn from what is stored.

    pool     int64 [n], ascending: the samples that take part; None: all of them
    weights  float [N] over all stored samples, 0 and above: an epoch is then n independent draws with replacement, each
             sample of the pool as likely as its weight says; None: each takes part once
    repeats  each sample stands this often in an epoch of unchanged length, in which 1/repeats of the samples take part,
             others each epoch (Hoffer et al. 2020, as timm's RepeatAugSampler has it). All stand in the same global
             batch, but for its ends, and apart from each other, so that ranks get different ones.
    views    each place in an epoch becomes this many consecutive rows, so an epoch is that much longer
    """

    pool: Ids | None = None
    weights: NDArray[np.float64] | None = None
    repeats: int = 1
    views: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.views < 1:
            raise FeedrateError(f"{self.repeats} repeats and {self.views} views: each number must be 1 or more")
        if self.weights is not None and self.repeats > 1:
            raise FeedrateError(f"{self.repeats} repeats: weighted draws repeat samples already, use one of the two")

    def identity(self) -> dict[str, Any]:
        """What fixes it, as JSON data."""
        return {
            "pool_sha256": None if self.pool is None else sha256(self.pool.astype("<i8").tobytes()).hexdigest(),
            "weights_sha256": None
            if self.weights is None
            else sha256(self.weights.astype("<f8").tobytes()).hexdigest(),
            "repeats": self.repeats,
            "views": self.views,
        }


class SampledOrder:
    """An order over what a sampling draws from a set of `num_stored` samples, in rows.

    Raises FeedrateError where the three do not go together.
    """

    def __init__(self, order: Order, sampling: Sampling, num_stored: int) -> None:
        _refuse_bad_pool(sampling.pool, num_stored)
        self._order = order
        self._pool = None if sampling.pool is None else sampling.pool.astype(np.int64)
        self._repeats = sampling.repeats
        self._views = sampling.views
        self._cumulative: NDArray[np.uint64] | None = None
        if (weights := sampling.weights) is not None:
            if weights.shape != (num_stored,):
                raise FeedrateError(f"weights {list(weights.shape)}: {num_stored} are needed, one a stored sample")
            self._cumulative = _cumulative(weights if self._pool is None else weights[self._pool])
        again = self._repeats > 1 or self._cumulative is not None
        if isinstance(order, Sequential) and (again or self._views > 1):
            drawn = "weights" if self._cumulative is not None else f"repeats = {self._repeats}"
            given = " and ".join([drawn] * again + [f"views = {self._views}"] * (self._views > 1))
            raise FeedrateError(f"evaluation counts every sample once, and is given {given}: leave that out there")
        if isinstance(order, BlockShuffled) and again:
            raise FeedrateError("repeats and weighted draws need the order 'shuffled', not blocks")
        self.num_chosen = num_stored if self._pool is None else len(self._pool)
        if self._repeats > max(1, self.num_chosen):
            raise FeedrateError(f"{self._repeats} repeats of a sample in an epoch of {self.num_chosen}: use fewer")
        # an order of places, each of which becomes `views` rows
        self._order_of_places = order if self._views == 1 else _shortened(order, self._views)

    def batch_size_per_rank(self, world_size: int) -> int:
        """Rows a rank; raises FeedrateError where the views of a sample would not all be one rank's."""
        rows = self._order.batch_size_per_rank(world_size)
        if rows % self._views:
            raise FeedrateError(
                f"{self._views} views of a sample do not divide the {rows} rows a rank:"
                f" use a batch size that is a multiple of {self._views * world_size}"
            )
        return rows

    def num_batches(self, world_size: int) -> int:
        """Batches an epoch."""
        self.batch_size_per_rank(world_size)
        return self._order.num_batches(self.num_chosen * self._views, world_size)

    def window(self, batch: int) -> tuple[int, int] | None:
        """[first, stop): the batches made of the same blocks as `batch`, None where the order has no blocks."""
        return self._order_of_places.window(self.num_chosen, batch)

    def keys(self, draws: Draws) -> Ids:
        """int64 [num_chosen × views]: the key at each position of this epoch."""
        places = self._places(draws)
        if self._views == 1:
            return places
        occurrences = (places >> _OCCURRENCE_SHIFT)[:, None] * self._views + np.arange(self._views)
        keys: Ids = (ids_of(places)[:, None] + _shifted(occurrences)).ravel()
        return keys

    def pick(self, bits: NDArray[np.uint64]) -> Ids:
        """int64 [n]: a sample for each 64 random bits, as likely as in the epoch."""
        if self._cumulative is None:
            places = below(bits >> np.uint64(32), np.array(self.num_chosen, dtype=np.uint64)).astype(np.int64)
        else:
            shares = below_64(bits, int(self._cumulative[-1]))
            places = np.searchsorted(self._cumulative, shares, side="right").astype(np.int64)
        return places if self._pool is None else self._pool[places]

    def _places(self, draws: Draws) -> Ids:
        """int64 [num_chosen] keys, before views."""
        if self._cumulative is not None:
            ids = self.pick(draws("sample", np.arange(self.num_chosen, dtype=np.int64)))
            return ids + _shifted(_times_before(ids))
        places = self._order_of_places.ids(self.num_chosen, draws)
        ids = places if self._pool is None else self._pool[places]
        if self._repeats == 1:
            return ids
        assert isinstance(self._order_of_places, Shuffled)
        number = _apart(self.num_chosen, self._repeats, self._order_of_places.global_batch_size)
        return ids[number // self._repeats] + _shifted(number % self._repeats)


def _shortened(order: Order, views: int) -> Order:
    """The order of places, `views` of its rows being one place."""
    assert isinstance(order, Shuffled | BlockShuffled)
    batch = order.global_batch_size
    step = views * (order.lanes if isinstance(order, BlockShuffled) else 1)
    if batch % step:
        raise FeedrateError(f"{views} views of a sample need a batch size that is a multiple of {step}, not {batch}")
    return replace(order, global_batch_size=batch // views)


def _refuse_bad_pool(pool: Ids | None, num_stored: int) -> None:
    if pool is None:
        return
    if not isinstance(pool, np.ndarray) or pool.ndim != 1 or pool.dtype.kind not in "iu":
        kind = f"{pool.dtype} {list(pool.shape)}" if isinstance(pool, np.ndarray) else type(pool).__name__
        raise FeedrateError(f"chosen samples are {kind}: they must be integers in a row, as np.flatnonzero(mask) gives")
    if not len(pool):
        raise FeedrateError("no sample is chosen: at least one is needed")
    if pool[0] < 0 or pool[-1] >= num_stored or bool((pool[1:] <= pool[:-1]).any()):
        raise FeedrateError(f"chosen samples must be different ones of 0 … {num_stored - 1}, ascending")


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Running sums of weights as whole numbers, the largest near 2**(62 - bits of their number): no sum overflows.

    Division, multiplication by a power of two and rounding are exact or correctly rounded on every processor.
    """
    if not np.isfinite(weights).all() or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise FeedrateError("weights must be finite, 0 or above, and of one chosen sample at least above 0")
    scale = float(1 << (62 - len(weights).bit_length()))
    whole = np.rint(weights / weights.max() * scale).astype(np.uint64)
    whole[(whole == 0) & (weights > 0)] = 1
    return np.cumsum(whole, dtype=np.uint64)


def _times_before(ids: Ids) -> Ids:
    """int64 [n]: how often each position's sample stands at an earlier one."""
    by_id = np.argsort(ids, kind="stable")
    is_first = np.diff(ids[by_id], prepend=-1) != 0
    at = np.arange(len(ids), dtype=np.int64)
    times = np.empty(len(ids), dtype=np.int64)
    times[by_id] = at - np.maximum.accumulate(np.where(is_first, at, 0))
    return times


def _apart(num_places: int, repeats: int, batch: int) -> Ids:
    """int64 [num_places]: number // repeats is a sample's place and number % repeats its repetition.

    Numbers ascend from batch to batch; within one, all first repetitions come first, then all second ones, and so on.
    """
    number = np.arange(num_places, dtype=np.int64)
    full = num_places // batch * batch
    in_batches = number[:full].reshape(-1, batch)
    by_repetition = np.argsort(in_batches % repeats, axis=1, kind="stable")
    number[:full] = np.take_along_axis(in_batches, by_repetition, axis=1).ravel()
    return number


def _shifted(occurrences: Ids) -> Ids:
    return (occurrences % _MAX_OCCURRENCES) << _OCCURRENCE_SHIFT
