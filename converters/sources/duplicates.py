"""Which images of a split are the same, byte for byte."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..progress import Advance, Phase
from ..samples import WHOLE_FILE, Samples, Stored

_PROBE_BYTES = 4096
_NUM_THREADS = 8  # for disks that answer slowly but many at once
_SAMPLES_AT_ONCE = 256
_DIGEST = np.dtype("V16")


def duplicate_groups(samples: Samples, phase: Phase) -> list[list[int]]:
    """Groups of two or more samples with the same bytes, each in order.

    Only samples of equal size are looked into: first at a few kB in their middle, which in nearly all pairs differ
    already, and then, where those agree, at all of their bytes. What cannot be read equals nothing; it is found to be
    broken later.
    """
    everyone = np.arange(len(samples), dtype=np.int64)
    left = _equal(everyone, samples.num_bytes)
    for label, num_bytes in (("compare equal sizes", _PROBE_BYTES), ("compare whole images", None)):
        if not len(left):
            return []
        with phase(label, len(left)) as advance:
            digests, was_read = _digests(samples, left, num_bytes, advance)
        left, digests = left[was_read], digests[was_read]
        _, kind = np.unique(digests, return_inverse=True)
        pairs = np.stack([samples.num_bytes[left], kind.astype(np.int64)], axis=1)
        _, group = np.unique(pairs, axis=0, return_inverse=True)
        group = group.reshape(-1)
        kept = np.isin(left, _equal(left, group))
        left, group = left[kept], group[kept]
    order = np.lexsort((left, group))
    return [part.tolist() for part in np.split(left[order], np.flatnonzero(np.diff(group[order])) + 1) if len(part)]


def _equal(indices: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the indices whose value another one has too."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return indices[counts[inverse.reshape(-1)] > 1]


def _digests(
    samples: Samples, indices: NDArray[np.int64], num_bytes: int | None, advance: Advance
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """A hash of `num_bytes` in the middle of each sample (None: of all its bytes), and whether it could be read."""
    digests, was_read = np.zeros(len(indices), _DIGEST), np.zeros(len(indices), np.bool_)

    def look(start: int) -> tuple[int, int]:
        num_read = 0
        stop = min(start + _SAMPLES_AT_ONCE, len(indices))
        for place in range(start, stop):
            try:
                content = _part(samples.stored(int(indices[place])), int(samples.num_bytes[indices[place]]), num_bytes)
            except OSError:
                continue
            digests[place] = np.void(blake2b(content, digest_size=_DIGEST.itemsize).digest())
            was_read[place] = True
            num_read += len(content)
        return stop - start, num_read

    _each(look, range(0, len(indices), _SAMPLES_AT_ONCE), advance)
    return digests, was_read


def _each(look: Callable[[int], tuple[int, int]], starts: range, advance: Advance) -> None:
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for num_looked_at, num_read in threads.map(look, starts):
            advance(num_looked_at, num_read)


def _part(stored: Stored, size: int, num_bytes: int | None) -> bytes:
    """Bytes of a sample of this size. Raises OSError."""
    start, length = (0, size) if num_bytes is None or size <= num_bytes else ((size - num_bytes) // 2, num_bytes)
    if stored.data is not None:
        return stored.data[start : start + length]
    first = 0 if stored.num_bytes == WHOLE_FILE else stored.position
    descriptor = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, first + start)
    finally:
        os.close(descriptor)
