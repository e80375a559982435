"""The names of very many files or samples, in one buffer."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


class PackedNames:
    """Names one after the other, and where each ends: those of 1.28 million files take 50 MB instead of 300.

    joined  all of them;  ends  as many int64
    """

    def __init__(self, joined: bytes = b"", ends: NDArray[np.int64] | None = None) -> None:
        self.joined = bytearray(joined)
        self.ends = array("q", b"" if ends is None else ends.tobytes())

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "PackedNames":
        """These, in this order."""
        packed = cls()
        for name in names:
            packed.append(name)
        return packed

    def append(self, name: bytes) -> None:
        """Add one more."""
        self.joined += name
        self.ends.append(len(self.joined))

    def extend(self, other: "PackedNames") -> None:
        """Add all of another's."""
        start = len(self.joined)
        self.joined += other.joined
        self.ends.extend(start + end for end in other.ends)

    def are_sound(self) -> bool:
        """Whether the ends are such, as they may not be where they were read from a file."""
        ends = np.frombuffer(self.ends, np.int64)
        return bool((np.diff(ends, prepend=0) >= 0).all()) and (int(ends[-1]) if len(ends) else 0) == len(self.joined)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        """The name with this number, 0 … len - 1."""
        return bytes(self.joined[self.ends[index - 1] if index else 0 : self.ends[index]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedNames) and self.joined == other.joined and self.ends == other.ends


class TextNames(Sequence[str]):
    """Names of any bytes as text, each made when it is asked for."""

    def __init__(self, packed: PackedNames) -> None:
        self._packed = packed

    @classmethod
    def of(cls, names: Iterable[str]) -> "TextNames":
        """These, in this order."""
        return cls(PackedNames.of(name.encode("utf-8", "surrogateescape") for name in names))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[one] for one in place]
        return self._packed[place].decode("utf-8", "surrogateescape")
