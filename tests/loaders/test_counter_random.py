"""Draws are SplitMix64, the same for ever."""

import numpy as np
import pytest

from loaders import counter_random
from loaders.counter_random import Draws, below, draw, stream_key
from loaders.errors import FeedrateError

MASK = 2**64 - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator in plain integers."""
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def test_draws_are_the_published_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert draw(1234567, np.arange(3)).tolist() == published == splitmix64(1234567, 3)


def test_draws_agree_with_plain_integers_also_where_products_wrap():
    for seed in (0, 1, MASK, 0x8000000000000000):
        assert draw(seed, np.arange(1000)).tolist() == splitmix64(seed, 1000)


def test_a_draw_depends_on_seed_epoch_name_and_id_alone():
    ids = np.array([5, 3, 900, 3])
    values = Draws(1, 2)("flip", ids)
    assert values[1] == values[3] == Draws(1, 2)("flip", np.array([3]))[0]
    others = [Draws(0, 2)("flip", ids), Draws(1, 3)("flip", ids), Draws(1, 2)("order", ids)]
    assert all(not np.any(values == other) for other in others)


def test_keys_never_change():
    assert [stream_key(0, 0, "order"), stream_key(7, 3, "flip"), stream_key(-1, 0, "crop shape 0")] == GOLDEN_KEYS


def test_bounded_draws_cover_their_range_evenly():
    values = below(Draws(0, 0)("place", np.arange(70_000)) >> np.uint64(32), np.full(70_000, 7, dtype=np.uint64))
    counts = np.bincount(values.astype(int), minlength=7)
    assert len(counts) == 7
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert chi_square < 35  # 6 degrees of freedom: p = 4e-6


GOLDEN_KEYS = [8358464222430679531, 8674626072455886130, 12578342394779545778]


def test_who_asked_with_a_number_that_equals_another_changes_nothing_for_that():
    """The cache takes 7.0, True and 7 for the same: the first would have left its own key there."""
    plain = Draws(7919, 1)("order", np.arange(4)).tolist()
    counter_random._stream_key.cache_clear()
    for seed, epoch in ((7919.0, 1), (7919, 1.0), ("7919", 1), (None, 1)):
        with pytest.raises(FeedrateError, match="it must be a whole number"):
            Draws(seed, epoch)("order", np.arange(4))
    assert Draws(np.int64(7919), True)("order", np.arange(4)).tolist() == plain
    assert Draws(7919, 1)("order", np.arange(4)).tolist() == plain
