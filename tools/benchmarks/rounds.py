"""Rounds that are done, kept on disk: a measurement that was interrupted goes on after its last whole round."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from . import json_lines
from .process import REPOSITORY
from .side_by_side import Say

_NAME = "rounds.jsonl"
MEASURED = ("loaders", "converters", "engine", "tools")


class Rounds:
    """What has been measured so far, by name; a line a round in `folder/rounds.jsonl`, the first line its settings. The
    folder is made where there is none.

    were_begun  whether some of it was there at the start: then not all was measured in one go
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._path = folder / _NAME
        folder.mkdir(parents=True, exist_ok=True)
        head = json.loads(json.dumps({"settings": settings, "code": code_sha256()}))
        first, *rounds = json_lines.read(self._path) or [None]
        # of other settings or other code, they are not to be mixed with these
        self.done: dict[str, Any] = dict(rounds) if first == head else {}
        self.were_begun = bool(self.done)
        if not self.done:
            self._path.unlink(missing_ok=True)
            json_lines.append(self._path, [head])

    def add(self, name: str, measured: Any) -> None:
        """Keep one more, on disk before this returns."""
        self.done[name] = measured
        json_lines.append(self._path, [[name, measured]])

    def missing(
        self, asked: Sequence[tuple[str, int]], say: Say, is_enough: Callable[[Any], bool] = lambda measured: True
    ) -> list[tuple[str, int]]:
        """Of these names, each with the number of a round, those that are not kept, or not with what `is_enough`."""
        keys = {(name, number): f"{name}/{number}" for name, number in asked}
        todo = [pair for pair, key in keys.items() if key not in self.done or not is_enough(self.done[key])]
        if len(todo) < len(asked):
            say(f"{len(asked) - len(todo)} of {len(asked)} rounds were measured before: going on after them")
        return todo

    def measure_each(
        self,
        todo: Sequence[tuple[str, int]],
        num_rounds: int,
        measure: Callable[[str, int], Any],
        shown: Callable[[str, Any], str],
        say: Say,
        weight: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        """Measure these one after the other and keep each. Round 0, where there is one, has its memory watched.

        shown   what to say of one, of its name and what was measured
        weight  by its name, what one takes in proportion to the others: how long is left follows from it
        """
        left, done = sum(weight(name) for name, _ in todo), 0.0
        started_s = time.monotonic()
        for name, number in todo:
            measured = measure(name, number)
            self.add(f"{name}/{number}", measured)
            left, done = left - weight(name), done + weight(name)
            left_s = (time.monotonic() - started_s) / done * left
            which = f"round {number} of {num_rounds}" if number else "memory"
            say(f"{which}, {shown(name, measured)}; about {left_s / 60:,.1f} min left")


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


def code_sha256(places: Sequence[str] = MEASURED) -> str:
    """Of all code whose speed or result is measured here, in these files and folders: the first 16 digits."""
    digest = sha256()
    for place in places:
        whole = REPOSITORY / place
        for path in [whole] if whole.is_file() else sorted(whole.rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".toml"):
                digest.update(str(path.relative_to(REPOSITORY)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
