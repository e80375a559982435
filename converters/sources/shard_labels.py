"""The labels of WebDataset shards: numbers, or the classes' names, and which classes they are of."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError

_MOST_CLASSES = 1 << 20  # a damaged label must not take all memory
_LONGEST_NAME = 255  # as of a folder; what is longer is a caption
_SHOWN_BYTES = 40


@dataclass
class ShardLabels:
    """What all splits' labels are. Names are numbered as they come until `settle` knows all of them."""

    _highest: int = -1
    _names: dict[str, int] = field(default_factory=dict)
    _first: tuple[int | str, str] | None = None  # the first label, and the sample that it is of

    def add(self, content: bytes, part: str, where: str) -> int:
        """The number, so far, of the label in the bytes of a sample's `part` ("cls", "json").

        Raises ValueError where it is none, or a name and the first was a number, or the other way round.
        """
        label = _json_label(content) if part == "json" else _text_label(content)
        if label is None or (isinstance(label, int) and not 0 <= label < _MOST_CLASSES):
            shown = content[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
            raise ValueError(
                f"its .{part} holds no label ({shown!r}), which is a whole number from 0 on, or a class's name: one"
                f" line of at most {_LONGEST_NAME} characters, with letters"
            )
        first, there = self._first = self._first or (label, where)
        if isinstance(first, str) is not isinstance(label, str):
            raise ValueError(
                f"labels are all numbers or all names: its own is {label!r}, and the first, of {there}, is {first!r}"
            )
        if isinstance(label, str):
            return self._names.setdefault(label, len(self._names))
        self._highest = max(self._highest, label)
        return label

    def settle(self, root: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The classes, and which of them (int64 [n]) each number that `add` gave stands for.

        Classes are those of classes.txt (one a line) or classes.json (a list, or names by number) at `root`; else the
        names in their order, or "0", "1", … Raises FeedrateError where a list there does not have all that samples are.
        """
        found = _listed(root)
        if self._names:
            path, classes = found or (root, tuple(sorted(self._names)))
            numbers = {name: number for number, name in enumerate(classes)}
            if odd := [name for name in self._names if name not in numbers]:
                raise FeedrateError(f"{path} does not name the class {odd[0]!r}, which a sample has: mend or remove it")
            return classes, np.array([numbers[name] for name in self._names], np.int64)
        path, classes = found or (root, tuple(str(label) for label in range(self._highest + 1)))
        if self._highest >= len(classes):
            raise FeedrateError(
                f"{path} names {len(classes):,} classes and a sample has label {self._highest}: mend it"
            )
        return classes, np.arange(len(classes))


def _text_label(content: bytes) -> int | str | None:
    try:
        return _of_text(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return None


def _of_text(text: str) -> int | str | None:
    text = text.strip()
    is_number = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NAME
    return int(text) if is_number else _name(text)


def _json_label(content: bytes) -> int | str | None:
    """Of "label", else of "cls"."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return None
    label = entries.get("label", entries.get("cls")) if isinstance(entries, dict) else None
    if isinstance(label, str):
        return _of_text(label)
    return label if isinstance(label, int) and not isinstance(label, bool) else None


def _name(text: str) -> str | None:
    """The name of a class is one line, and has a letter: "-1" and "0.5" are none."""
    is_line = len(text) <= _LONGEST_NAME and text.isprintable()
    return text if is_line and any(letter.isalpha() for letter in text) else None


def _listed(root: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The list of classes there, if one is."""
    for path in (root / "classes.txt", root / "classes.json"):
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            classes = _from_json(text) if path.suffix == ".json" else tuple(line.strip() for line in text.splitlines())
            if not all(classes) or len(set(classes)) < len(classes):
                raise ValueError("a name is empty or stands there twice")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FeedrateError(f"{path} is not a list of classes ({error}): mend or remove it") from error
        return path, classes
    return None


def _from_json(text: str) -> tuple[str, ...]:
    content = json.loads(text)
    if isinstance(content, dict):
        content = [content[str(label)] for label in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError('it should be ["name", …] or {"0": "name", …}')
    return tuple(name.strip() for name in content)
