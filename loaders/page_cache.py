"""Keeping a whole packed set in memory: in the system's page cache, which all ranks of a machine share."""

import resource
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from .errors import FeedrateError
from .mapped_file import MappedFile, bring_in
from .memory_limit import available_memory_bytes
from .read_ahead import Mapped, stored_ranges
from .records import Records, lie_in_memory

_PIECE_BYTES = 32 << 20
_USABLE_SHARE = 0.9  # of what is available: the rest is for the process itself

# leave the page cache to the system, or fill it with the whole set
PageCache = Literal["system", "memory"]

Say = Callable[[str], None]
_Range = tuple[MappedFile, int, int]


class WholeSet:
    """The stored bytes of all samples of some records, those that lie in mapped files.

    Raises FeedrateError for records that neither say that they are in memory anyway nor lie in mapped files.
    """

    def __init__(self, records: Sequence[Records]) -> None:
        self._ranges: list[_Range] = []
        for split in records:
            if lie_in_memory(split):
                continue
            if not isinstance(split, Mapped):
                raise FeedrateError(
                    f"page cache 'memory' needs a packed set, and {split.where(0)} is no part of one: pack the images"
                    " with tools/convert.py, or use 'system'"
                )
            self._ranges += stored_ranges(split, np.arange(len(split), dtype=np.int64))
        self.num_bytes = sum(stop - start for _, start, stop in self._ranges)

    def refusal(self, available_bytes: int | None = None) -> str | None:
        """One sentence if it does not fit into what this process may use, else None.

        `available_bytes` stands for what the system says.
        """
        available = available_memory_bytes() if available_bytes is None else available_bytes
        if available is None or self.num_bytes <= _USABLE_SHARE * available:
            return None
        return (
            f"page cache 'memory': the set takes {self.num_bytes / 1e9:.1f} GB and {_USABLE_SHARE:.0%} of what is free"
            f" are {_USABLE_SHARE * available / 1e9:.1f} GB: use 'system', with blocks as the order, or a smaller set"
        )

    def bring_in(self, part: int, num_parts: int, say: Say) -> None:
        """Read one of `num_parts` equal parts, and keep it for as long as the records are open.

        Says how far it is at each quarter, and in the end whether the system may still drop pages under pressure.
        """
        first, last = (self.num_bytes * number // num_parts for number in (part, part + 1))
        done, said, locked_bytes = 0, 0, 0
        may_lock = True
        for file, start, stop in self._pieces(first, last):
            bring_in(file.view(start, stop - start))
            may_lock = may_lock and file.lock(start, stop)
            locked_bytes += (stop - start) * may_lock
            done += stop - start
            if 4 * done // max(1, last - first) > said:
                said = 4 * done // (last - first)
                say(f"reading into memory: {done / 1e9:.1f} of {(last - first) / 1e9:.1f} GB, {25 * said} %")
        if locked_bytes < last - first:
            soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            say(
                f"{locked_bytes / 1e9:.1f} of {(last - first) / 1e9:.1f} GB are locked, since ulimit -l allows"
                f" {soft / 1024:.0f} KiB: the system may drop the rest if memory runs short"
            )

    def _pieces(self, first: int, last: int) -> list[_Range]:
        """The ranges of bytes [first, last) of all, counted through, in pieces."""
        pieces, before = [], 0
        for file, start, stop in self._ranges:
            low, high = max(first, before), min(last, before + stop - start)
            for place in range(low, high, _PIECE_BYTES):
                end = min(high, place + _PIECE_BYTES)
                pieces.append((file, start + place - before, start + end - before))
            before += stop - start
        return pieces
