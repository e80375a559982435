"""Bytes, for people, and what files take of a disk."""

from collections.abc import Iterable
from pathlib import Path

_UNITS = ("kB", "MB", "GB", "TB")
_BLOCK_BYTES = 512  # in which `stat` counts, whatever the file system's own blocks are


def readable_bytes(num_bytes: float, give_or_take: float = 0.0) -> str:
    """In the unit that suits: 999 B, 12.3 kB, 4.5 GB; "4.5 ± 0.3 GB" where `give_or_take` shows in that unit."""
    if num_bytes < 999.5:
        return f"{num_bytes:.0f}{f' ± {give_or_take:.0f}' if give_or_take >= 0.5 else ''} B"
    power = 1
    while power < len(_UNITS) and num_bytes / 1000**power >= 999.95:
        power += 1
    either_way = give_or_take / 1000**power
    margin = f" ± {either_way:,.1f}" if either_way >= 0.05 else ""
    return f"{num_bytes / 1000**power:,.1f}{margin} {_UNITS[power - 1]}"


def disk_bytes(paths: Iterable[Path]) -> int:
    """What the files take of their disk: less than their sizes where they have holes, as .beton's pages do."""
    return sum(path.stat().st_blocks * _BLOCK_BYTES for path in paths)
