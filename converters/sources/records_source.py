"""Samples of whatever is open as `loaders.records.Records`: byte ranges where it says where they lie, else copies."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaders.records import Records

from ..samples import BadSample, Stored

_SAMPLES_AT_ONCE = 1000


class RecordSamples:
    """Fulfils `converters.samples.Samples`.

    name    what sample `index` is called;  place  what people call the whole, where the bytes are not those of a file
    stamp   stands for the contents in the fingerprint: whatever changes whenever they do
    """

    def __init__(
        self,
        records: Records,
        name: Callable[[int], str],
        place: str,
        stamp: bytes,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        self.classes = records.classes
        self.class_names = records.classes if class_names is None else class_names
        self.labels = records.labels
        self.bad: Sequence[BadSample] = ()
        self.num_ignored = 0
        self.notes: dict[str, object] = {}
        self._records: Any = records
        self._name = name
        self._place = place
        self._stamp = stamp
        sizes = getattr(records, "sizes", None)  # together with `positions`, in records that lie in files
        self._is_in_files = sizes is not None
        self.num_bytes = _sizes(records) if sizes is None else np.asarray(sizes, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, index: int) -> Stored:
        """A range of a packed file, or the bytes themselves."""
        records = self._records
        raw_size = (int(records.widths[index]), int(records.heights[index])) if records.is_raw[index] else None
        num_bytes = int(self.num_bytes[index])
        if not self._is_in_files:
            return Stored(
                self._name(index), self._place, 0, num_bytes, raw_size, np.asarray(records.read(index)).tobytes()
            )
        path = records.paths[records.shards[index]] if hasattr(records, "shards") else records.path
        return Stored(self._name(index), str(path), int(records.positions[index]), num_bytes, raw_size)

    def fingerprint(self) -> str:
        """See `Samples`."""
        digest = sha256("\0".join(self.classes).encode("utf-8", "surrogateescape") + b"\0\0" + self._stamp)
        for start in range(0, len(self), _SAMPLES_AT_ONCE):
            names = [self._name(index) for index in range(start, min(start + _SAMPLES_AT_ONCE, len(self)))]
            digest.update("\0".join([*names, ""]).encode("utf-8", "surrogateescape"))
        for column in (self.labels, self.num_bytes, self._records.widths, self._records.heights):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


def _sizes(records: Records) -> NDArray[np.int64]:
    raw = 3 * records.widths.astype(np.int64) * records.heights
    encoded = np.flatnonzero(~records.is_raw).tolist()
    raw[encoded] = [len(records.read(index)) for index in encoded]
    return raw
