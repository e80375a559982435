"""Where the members of a .tar lie, so that they can be read in place: their headers are read, their bytes are not."""

import tarfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError
from loaders.packed_names import PackedNames

from ..samples import BadSample, Stored

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_READ_AT_ONCE = 1 << 20
_MAGIC = slice(257, 262)  # of a header: "ustar", whichever dialect


class Member(NamedTuple):
    """A file in a .tar: its name there, where its bytes lie in the whole file, or whether it is a link instead."""

    name: str
    position: int
    num_bytes: int
    is_link: bool


def tar_members(path: Path, start: int = 0, num_bytes: int | None = None) -> Iterator[Member]:
    """The files and links of the .tar that takes `num_bytes` from byte `start` on (None: all) of the file at `path`.

    Raises FeedrateError where it was cut short, damaged or compressed, or goes on behind its end mark: a list that ends
    too early is never passed off as a whole one, as Python's `tarfile` would do. Raises OSError.
    """
    with open(path, "rb") as file:
        stop = file.seek(0, 2) if num_bytes is None else start + num_bytes
        file.seek(start)
        try:
            with tarfile.TarFile(fileobj=file, mode="r", errorlevel=1) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # or memory would grow with the archive
                    if member.issparse():
                        raise FeedrateError(
                            f"{path} holds {member.name} as a sparse file: pack the .tar without --sparse"
                        )
                    if member.isreg() or member.islnk() or member.issym():
                        name = member.name.removeprefix("./")
                        yield Member(name, member.offset_data, member.size, not member.isreg())
                end = archive.offset
        except (tarfile.TarError, EOFError) as error:
            raise _compressed(path) or _damaged(path, str(error)) from error
        file.seek(end)
        if end + tarfile.BLOCKSIZE > stop or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _compressed(path) or _damaged(path, "its end mark is missing")
        if (behind := _first_behind(file, stop)) is not None:
            raise FeedrateError(
                f"{path} goes on behind its end mark, with {behind}, as archives joined by cat do: readers stop at"
                " the mark, so write it again as one archive"
            )


def _first_behind(file: BinaryIO, stop: int) -> str | None:
    """The name in the first header from here up to byte `stop`, at the blocks' borders; None where none follows.

    What follows an end mark is zeros as a rule; other bytes without a header are nobody's samples.
    """
    while (left := stop - file.tell()) >= tarfile.BLOCKSIZE:
        read = file.read(min(_READ_AT_ONCE, left))
        for start in range(0, len(read) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
            block = read[start : start + tarfile.BLOCKSIZE]
            if block[_MAGIC] == b"ustar":
                with suppress(tarfile.HeaderError):
                    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").name
        if not read:
            break
    return None


def _damaged(path: Path, reason: str) -> FeedrateError:
    return FeedrateError(f"{path} was cut short or is damaged ({reason}): get it again, the whole of it")


def _compressed(path: Path) -> FeedrateError | None:
    with open(path, "rb") as file:
        head = file.read(8)
    for mark, kind in _COMPRESSED.items():
        if head.startswith(mark):
            return FeedrateError(f"{path} is compressed with {kind}: decompress it, since samples are read in place")
    return None


@dataclass
class MemberList:
    """Members to be samples, in order: a compact list that grows. `files` are the archives they lie in."""

    names: PackedNames = field(default_factory=PackedNames)
    positions: "array[int]" = field(default_factory=lambda: array("q"))
    num_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    files: "array[int]" = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, position: int, num_bytes: int, label: int, file: int = 0) -> None:
        """Append one, by its name as a sample; it lies in the archive number `file`."""
        self.names.append(name.encode("utf-8", "surrogateescape"))
        self.positions.append(position)
        self.num_bytes.append(num_bytes)
        self.labels.append(label)
        self.files.append(file)


class TarSamples:
    """Samples that are members of .tar archives, read in place. Fulfils `converters.samples.Samples`."""

    def __init__(
        self,
        archives: Sequence[Path],
        members: MemberList,
        classes: tuple[str, ...],
        class_names: tuple[str, ...],
        bad: Sequence[BadSample] = (),
        num_ignored: int = 0,
    ) -> None:
        self.classes = classes
        self.class_names = class_names
        self.labels = np.array(members.labels, np.int64)
        self.num_bytes = np.array(members.num_bytes, np.int64)
        self.bad = bad
        self.num_ignored = num_ignored
        self.notes: dict[str, object] = {}
        self._archives = [str(archive) for archive in archives]
        self._stamps = [(archive.name, (status := archive.stat()).st_size, status.st_mtime_ns) for archive in archives]
        self._names = members.names
        self._positions = np.array(members.positions, np.int64)
        self._files = np.array(members.files, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, index: int) -> Stored:
        """A range of an archive's bytes."""
        return Stored(
            self._names[index].decode("utf-8", "surrogateescape"),
            self._archives[self._files[index]],
            int(self._positions[index]),
            int(self.num_bytes[index]),
        )

    def fingerprint(self) -> str:
        """See `Samples`."""
        digest = sha256("\0".join(self.classes).encode("utf-8", "surrogateescape") + b"\0\0" + self._names.joined)
        digest.update(repr(self._stamps).encode())
        digest.update(self._names.ends)
        columns: list[NDArray[np.integer]] = [self._positions, self.num_bytes, self.labels, self._files]
        for column in columns:
            digest.update(column.tobytes())
        return digest.hexdigest()
