"""Randomness without state: every draw is a hash of what it is for.

A draw depends on (seed, epoch, name of the draw, sample id) and on nothing else: not on threads, workers, ranks, the
order of calls, or what ran before. Only 64-bit integer arithmetic is used, so the values are the same for every NumPy,
compiler and processor.

The hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) read at position `id + 1` of the stream that the key starts.
"""

from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from .errors import whole_number

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, epoch: int, name: str) -> int:
    """The 64-bit start of the stream of draws called `name` in this epoch of this seed."""
    return _stream_key(whole_number("seed", seed), whole_number("epoch", epoch), name)


@lru_cache(maxsize=1024)
def _stream_key(seed: int, epoch: int, name: str) -> int:
    """Of ints alone: 1.0 and True would be written otherwise, and yet found in the cache by who asks for 1."""
    text = f"feedrate {seed} {epoch} {name}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def draw(key: int, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One uniform 64-bit integer a sample: uint64 [n] for int64 [n] ids of 0 and above."""
    bits = ids.astype(np.uint64)
    bits += np.uint64(1)
    bits *= _GOLDEN_GAMMA  # wraps around modulo 2**64, as it should
    bits += np.uint64(key)
    bits ^= bits >> np.uint64(30)
    bits *= _MULTIPLIER_1
    bits ^= bits >> np.uint64(27)
    bits *= _MULTIPLIER_2
    bits ^= bits >> np.uint64(31)
    return bits


def below(bits32: NDArray[np.uint64], bound: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Map 32 random bits onto 0 … bound - 1 (bound up to 2**32; the bias is bound / 2**32)."""
    return (bits32 * bound) >> np.uint64(32)


def below_64(bits: NDArray[np.uint64], bound: int) -> NDArray[np.uint64]:
    """Map 64 random bits onto 0 … bound - 1 (bound up to 2**63; the bias is bound / 2**64): the product's high half."""
    low_32, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    bound_low, bound_high = np.uint64(bound & 0xFFFFFFFF), np.uint64(bound >> 32)
    bits_low, bits_high = bits & low_32, bits >> half
    middle = bits_high * bound_low + (bits_low * bound_low >> half)
    high: NDArray[np.uint64] = bits_high * bound_high
    high += (middle >> half) + ((bits_low * bound_high + (middle & low_32)) >> half)
    return high


class Draws:
    """The draws of one epoch of one seed."""

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed = seed
        self._epoch = epoch

    def __call__(self, name: str, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64 [n], uniform; the same name and id always give the same value."""
        return draw(stream_key(self._seed, self._epoch, name), ids)
