"""SHA-256 of files in the background, while other work goes on; ends within a moment when it is not wanted any more."""

import hashlib
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from ..progress import Advance

_NUM_THREADS = 4
_BLOCK_BYTES = 8 << 20
_LOOK_INTERVAL_S = 0.2


class _Stopped(Exception):
    """Nobody wants the result."""


class Checksums:
    """Hashes `files`, sizes in bytes by path, from being made until the block ends that it is used in."""

    def __init__(self, files: Mapping[Path, int]) -> None:
        self._num_bytes = sum(files.values())
        self._read = dict.fromkeys(files, 0)  # bytes of each so far; every thread writes its own entry
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="feedrate-checksum")
        self._results: dict[Path, Future[str]] = {}
        for path in sorted(files, key=lambda path: -files[path]):  # the largest first: one file is one thread's
            self._results[path] = self._threads.submit(self._hash, path)

    def __enter__(self) -> "Checksums":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def num_done(self, of: int) -> int:
        """How far it is, 0 … `of`, in proportion to the bytes."""
        return of * sum(self._read.values()) // max(1, self._num_bytes)

    def wait(self, advance: Advance, of: int) -> dict[Path, str | OSError]:
        """Hexadecimal digests by path, or why there is none; `advance` is told the rest of the way to `of`."""
        pending = set(self._results.values())
        done, num_read = self.num_done(of), sum(self._read.values())
        while pending:
            _, pending = wait(pending, _LOOK_INTERVAL_S, FIRST_COMPLETED)
            now, now_read = self.num_done(of), sum(self._read.values())
            advance(now - done, now_read - num_read)
            done, num_read = now, now_read
        return {path: _outcome(result) for path, result in self._results.items()}

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK_BYTES))
        with open(path, "rb", buffering=0) as file:
            while num_read := file.readinto(block):
                if self._stop.is_set():
                    raise _Stopped
                digest.update(block[:num_read])
                self._read[path] += num_read
        return digest.hexdigest()


def _outcome(result: "Future[str]") -> str | OSError:
    with suppress(_Stopped):
        error = result.exception()
        if isinstance(error, OSError):
            return error
    return result.result()
