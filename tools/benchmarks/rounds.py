"""Rounds that are done, kept on disk: a measurement that was interrupted goes on after its last whole round."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from .process import REPOSITORY

_NAME = "rounds.jsonl"
MEASURED = ("loaders", "converters", "engine", "tools")


class Rounds:
    """What has been measured so far, by name; a line a round in `folder/rounds.jsonl`, the first line its settings.

    were_begun  whether some of it was there at the start: then not all was measured in one go
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._path = folder / _NAME
        self._head = json.dumps({"settings": settings, "code": code_sha256()}, sort_keys=True)
        self.done: dict[str, Any] = self._read()
        self.were_begun = bool(self.done)
        if not self.done:
            self._path.write_text(self._head + "\n")

    def add(self, name: str, measured: Any) -> None:
        """Keep one more, on disk before this returns."""
        self.done[name] = measured
        with open(self._path, "a") as file:
            file.write(json.dumps([name, measured]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        head, *lines = self._path.read_text().split("\n")
        if head != self._head or not lines:
            return {}  # of other settings or other code: not to be mixed with these
        cut_off = lines.pop()  # behind the last newline: what a kill left of a line, or nothing
        os.truncate(self._path, self._path.stat().st_size - len(cut_off.encode()))
        return dict(json.loads(line) for line in lines)


@contextmanager
def working_folder(path: Path) -> Iterator[None]:
    """The folder, made if need be, held against another measurement. Raises FeedrateError where it is not our own."""
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / ".lock").exists())):
        raise FeedrateError(f"{path} holds something else: give another --work, or remove it")
    path.mkdir(parents=True, exist_ok=True)
    with held(path, "--work"):
        yield


@contextmanager
def held(path: Path, option: str) -> Iterator[None]:
    """The folder, held against another measurement. Raises FeedrateError, naming the `option` it came from."""
    with open(path / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeedrateError(
                f"{path} is used by another measurement: wait for it, or give another {option}"
            ) from error
        yield


def remove(folder: Path) -> None:
    """Remove a working folder whose results are written."""
    shutil.rmtree(folder)


def code_sha256(folders: Sequence[str] = MEASURED) -> str:
    """Of all code whose speed or result is measured here: the first 16 digits."""
    digest = sha256()
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".toml"):
                digest.update(str(path.relative_to(REPOSITORY)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
