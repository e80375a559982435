"""What a packing pass has surely written, so that a later run goes on from there.

A file of records, each with its length and checksum; a record cut short by a crash counts as never written.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .formats.outputs import ROW, Rows, cut, sync, write_at
from .samples import BadSample

_MAGIC = b"FRJ2"  # with the layout of rows; what was begun with another begins anew
_HEAD = struct.Struct("<4sQQI")  # magic, bytes of rows, bytes of JSON, CRC-32 of both


@dataclass
class Tally:
    """Where a split's pass stands, beside its rows.

    num_tasks    done;  bad  what could not be used
    histogram    3 × 256 counts of pixel values, of the `num_counted` samples that were counted
    """

    num_tasks: int = 0
    num_counted: int = 0
    histogram: list[list[int]] = field(default_factory=lambda: [[0] * 256 for _ in range(3)])
    bad: list[BadSample] = field(default_factory=list)


class Journal:
    """One split's journal. Appending returns when the record is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self._num_bad = 0

    def read(self) -> tuple[Rows, Tally]:
        """All rows and the last tally; what follows the last whole record is forgotten."""
        data = self._path.read_bytes() if self._path.exists() else b""
        parts, last, bad = [], Tally(), []
        position = 0
        while position + _HEAD.size <= len(data):
            magic, row_bytes, json_bytes, checksum = _HEAD.unpack_from(data, position)
            start, end = position + _HEAD.size, position + _HEAD.size + row_bytes + json_bytes
            if magic != _MAGIC or end > len(data) or zlib.crc32(data[start:end]) != checksum:
                break
            parts.append(np.frombuffer(data, ROW, row_bytes // ROW.itemsize, start))
            content = json.loads(data[start + row_bytes : end])
            bad += [BadSample(**item) for item in content.pop("bad")]
            last = Tally(**content)
            position = end
        self._end, self._num_bad = position, len(bad)
        cut(self._path, position)
        last.bad = bad
        return np.concatenate(parts) if parts else np.zeros(0, ROW), last

    def append(self, rows: Rows, tally: Tally) -> None:
        """Note these further rows, and where the pass stands after them. Raises OSError."""
        content: dict[str, Any] = {**vars(tally), "bad": [asdict(item) for item in tally.bad[self._num_bad :]]}
        row_bytes = np.ascontiguousarray(rows).tobytes()
        json_bytes = json.dumps(content).encode()
        body = row_bytes + json_bytes
        record = _HEAD.pack(_MAGIC, len(row_bytes), len(json_bytes), zlib.crc32(body)) + body
        write_at(self._path, self._end, record)
        sync(self._path)
        self._end += len(record)
        self._num_bad = len(tally.bad)
