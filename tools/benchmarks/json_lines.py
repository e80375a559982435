"""Files of JSON, a value a line, that grow one measurement at a time and survive a kill at any moment.

What a kill left of a last line is not read, and cut off before anything is added, since what follows it would be lost.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK_BYTES = 1 << 16


def append(path: Path, values: Iterable[Any]) -> None:
    """Add a line for each value, on disk before this returns."""
    lines = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    with open(path, "a+b") as file:
        _mend(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_text(path: Path) -> list[str]:
    """Every whole line as it stands there; none where there is no such file."""
    if not path.exists():
        return []
    *whole, _cut_off = path.read_text().split("\n")
    return whole


def read(path: Path) -> list[Any]:
    """Every value; none where there is no such file."""
    return [json.loads(line) for line in read_text(path)]


def by_kind(metrics: Path) -> defaultdict[str, list[Any]]:
    """The records of a run's metrics.jsonl by their kind, "step" or "epoch"; there may be none of one."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for record in read(metrics):
        found[record["kind"]].append(record)
    return found


def _mend(file: BinaryIO) -> None:
    """Cut off what stands behind the last end of a line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    file.truncate(end)
