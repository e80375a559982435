"""One training at a time in a run's folder: two would write into each other's files, and neither would know."""

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from loaders.errors import FeedrateError

from ..checkpointing.checkpoint import checkpoints_by_step
from ..dist import Ranks
from ..reporting.writing import OR_ELSEWHERE, writing

LOCK_NAME = "run.lock"

_DYING_MAY_TAKE_S = 3.0  # a process that was killed holds its locks until its memory is given back
_ASK_AGAIN_S = 0.1

_held: set[int] = set()


class RunLock:
    """A lock (flock) on run.lock in the run's folder, which the main rank holds until the block ends.

    The kernel gives it back however the process ends, so nothing has to be tidied up before the run goes on. The file
    stays, since another process might have it open already when it was removed, and names who holds the lock, or did
    last. Where the file system knows no locks, nothing is held.
    """

    def __init__(self, folder: Path, ranks: Ranks, patience_s: float = _DYING_MAY_TAKE_S) -> None:
        self._folder = folder
        self._ranks = ranks
        self._patience_s = patience_s
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._descriptor is not None:
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def hold(self) -> None:
        """Before anything in the folder is read; where there is none yet, `make_and_hold` comes later.

        Every rank must call. Raises FeedrateError, on every rank, where another process trains there.
        """
        self._ranks.on_main(lambda: self._lock() if self._folder.is_dir() else None)

    def make_and_hold(self) -> None:
        """The same before anything is written, with the folder made if need be: by each rank, since it may be on a
        machine of its own, where it writes what is its own."""
        self._ranks.together(self._make_and_lock if self._ranks.is_main else self._make)

    def refuse_lost(self) -> None:
        """Raise FeedrateError where the folder was removed, or is another one by now: two runs would be mixed there.

        Only the main rank can tell.
        """
        if self._descriptor is None:
            return
        held = os.fstat(self._descriptor)
        try:
            there = os.stat(self._folder / LOCK_NAME)
        except OSError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise FeedrateError(
                f"{self._folder} was removed or replaced while the run wrote there: give the same command to begin anew"
            )

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeedrateError(f"the run's folder {self._folder} cannot be made: {error}") from error

    def _make_and_lock(self) -> None:
        if self._descriptor is not None:
            self.refuse_lost()
            return
        self._make()
        self._lock()
        if checkpoints_by_step(self._folder / "checkpoints"):
            # there was not even a folder when this run looked for one to go on from
            raise FeedrateError(
                f"another process has trained in {self._folder} since this one started: give the same command again to"
                " go on from there, or another --name"
            )

    def _lock(self) -> None:
        path = self._folder / LOCK_NAME
        with writing(path, OR_ELSEWHERE):
            # for writing: NFS gives no exclusive lock on a file that is open for reading alone
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _held.add(self._descriptor)
        if not _is_locked(self._descriptor, self._patience_s):
            who = os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip()
            is_elsewhere = who and not who.endswith(f" on {socket.gethostname()}")
            gone = f"; if that machine is gone for good, delete {path}" if is_elsewhere else ""
            raise FeedrateError(
                f"another process is training in {self._folder}{f' ({who})' if who else ''}: wait until it is done, end"
                f" it, or give another --name{gone}"
            )
        with contextlib.suppress(OSError):  # on a full disk the lock is held without a name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _is_locked(descriptor: int, patience_s: float) -> bool:
    """Take the lock. False where another process holds it all the time that may pass."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_ASK_AGAIN_S)
        except OSError:  # no locks here
            return True
        else:
            return True


def _let_go_in_child() -> None:
    """A lock is held as long as any process has the file open: a worker that outlives its run must not hold it."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
