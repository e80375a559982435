"""Limits of memory and of reading put on one command, by Linux's control groups, version 1."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loaders.errors import FeedrateError

_ROOT = Path("/sys/fs/cgroup")
_DEVICES = Path("/sys/dev/block")
_LEAVING_S = 5.0
# the shell goes into the groups, and then is the command: so all of it is limited, its start too
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'
_numbers = itertools.count()


@dataclass(frozen=True)
class Limits:
    """memory_bytes      of all processes, pages of files that they read first among it; None: no limit
    read_bytes_per_s  from the disk, by all of them; None: no limit
    """

    memory_bytes: int | None = None
    read_bytes_per_s: int | None = None


def why_not(path: Path, root: Path = _ROOT) -> str | None:
    """Why no limits can be put on a command that reads below `path`, or None where they can."""
    for controller in ("memory", "blkio"):
        folder = root / controller
        if not (folder / "cgroup.procs").exists():
            return f"there is no {folder}: this needs control groups of version 1"
        if not os.access(folder, os.W_OK):
            return f"{folder} may not be written to: this needs to be root"
    if not (root / "blkio" / "blkio.throttle.read_bps_device").exists():
        return "this system cannot limit reading (no blkio.throttle.read_bps_device)"
    if _disk_of(path) is None:
        return f"{path} lies on no disk of its own, whose reading could be limited"
    return None


class Group:
    """Where a command is run within limits."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def command(self, words: Sequence[str]) -> list[str]:
        """The same command, within the limits."""
        return ["sh", "-c", _ENTER, "limited", *map(str, self._folders), "--", *words]


@contextmanager
def limited(limits: Limits, path: Path) -> Iterator[Group]:
    """A group with these limits; those of reading hold for the disk on which `path` lies. Removed at the end.

    Raises FeedrateError where that cannot be done here, or a process of the group is left when it ends.
    """
    if reason := why_not(path):
        raise FeedrateError(f"no limits can be set: {reason}")
    name = f"feedrate-{os.getpid()}-{next(_numbers)}"
    wanted: dict[Path, dict[str, str]] = {}
    if limits.memory_bytes is not None:
        wanted[_ROOT / "memory" / name] = {"memory.limit_in_bytes": str(limits.memory_bytes)}
    if limits.read_bytes_per_s is not None:
        rule = f"{_disk_of(path)} {limits.read_bytes_per_s}"
        wanted[_ROOT / "blkio" / name] = {"blkio.throttle.read_bps_device": rule}
    made: list[Path] = []
    try:
        for folder, settings in wanted.items():
            folder.mkdir()
            made.append(folder)
            for setting, value in settings.items():
                (folder / setting).write_text(value)
        yield Group(made)
    finally:
        for folder in made:
            _remove(folder)


def _remove(folder: Path) -> None:
    deadline_s = time.monotonic() + _LEAVING_S
    while True:
        try:
            folder.rmdir()  # what is in it are not files
            return
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise FeedrateError(f"{folder} cannot be removed: processes are left in it") from error
            time.sleep(0.05)


def _disk_of(path: Path) -> str | None:
    """ "major:minor" of the whole disk below a path; None where it is no disk."""
    device = os.stat(path).st_dev
    place = _DEVICES / f"{os.major(device)}:{os.minor(device)}"
    if (place / "partition").exists():
        place = place.resolve().parent
    try:
        return (place / "dev").read_text().strip()
    except OSError:
        return None
