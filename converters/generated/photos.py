"""The generated set, for people without data: `train/<class>/<number>.jpg` and `val/<class>/<number>.jpg`."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.atomic import PARTIAL_SUFFIX, atomic_file
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError
from loaders.records import SPLITS

from ..crew import run_in_order
from ..progress import Advance, Phase, silent_phase
from .scenes import photo
from .subjects import SUBJECTS

RECIPE_NAME = "recipe.json"
_RECIPE_VERSION = 1  # to be raised when the same seed gives other photos
_CHUNK_PHOTOS = 16
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class PhotoWriter:
    """See `crew.Work`: makes photos [start, stop) of a split, but keeps those that are there.

    Photo n belongs to class n modulo `num_classes`, so classes are equally large.
    """

    root: Path
    split: str
    num_classes: int
    seed: int

    def read_ahead(self, task: tuple[int, int]) -> None:
        """There is nothing to read."""

    def prepare(self, task: tuple[int, int], at: Callable[[int], None]) -> tuple[tuple[int, int], None]:
        """How many were written, and the bytes of all."""
        num_written = num_bytes = 0
        for item, number in enumerate(range(*task)):
            at(item)
            path = self.path(number)
            if not _is_complete(path):
                _write(path, photo(self.seed, self.split, number, path.parent.name))
                num_written += 1
            num_bytes += path.stat().st_size
        return (num_written, num_bytes), None

    def write(self, kept: None, place: None) -> None:
        """Each photo is a file of its own, written as soon as it was made."""

    def path(self, number: int) -> Path:
        """Where photo `number` belongs."""
        name = list(SUBJECTS)[number % self.num_classes]
        return self.root / self.split / name / f"{number // self.num_classes:05d}.jpg"


def write_photos(
    root: Path,
    num_photos: Mapping[str, int],
    seed: int = 0,
    num_classes: int = len(SUBJECTS),
    num_workers: int | None = None,
    phase: Phase = silent_phase,
) -> tuple[int, int]:
    """Fill `root` with {split: number} photos, or complete it after an interruption, with all processors unless told.

    Returns how many were written and how many were there. Raises FeedrateError on numbers that cannot be, and where
    `root` holds something else or photos of another recipe.
    """
    _check_recipe(num_photos, seed, num_classes)
    recipe = {"version": _RECIPE_VERSION, "seed": seed, "num_classes": num_classes, "num_photos": dict(num_photos)}
    _claim(root, recipe)
    num_written = 0
    for split, num in num_photos.items():
        writer = PhotoWriter(root, split, num_classes, seed)
        for number in range(num_classes):
            writer.path(number).parent.mkdir(parents=True, exist_ok=True)
        tasks = [(start, min(start + _CHUNK_PHOTOS, num)) for start in range(0, num, _CHUNK_PHOTOS)]
        with phase(f"photos {split}", num) as advance:
            num_written += _write_split(writer, tasks, num_workers or available_cpus(), advance)
    return num_written, sum(num_photos.values()) - num_written


def _write_split(writer: PhotoWriter, tasks: list[tuple[int, int]], num_workers: int, advance: Advance) -> int:
    """Write the photos of all tasks; returns how many were not there."""
    num_written = 0

    def count(task: tuple[int, int], report: tuple[int, int]) -> None:
        nonlocal num_written
        num_written += report[0]
        advance(task[1] - task[0], report[1])

    def describe(number: int, item: int) -> str:
        return str(writer.path(tasks[number][0] + max(0, item)))

    with closing(run_in_order(writer, tasks, num_workers, count, describe)) as done:
        for _ in done:
            pass
    return num_written


def _check_recipe(num_photos: Mapping[str, int], seed: int, num_classes: int) -> None:
    """Raise FeedrateError on numbers that cannot be."""
    if not 2 <= num_classes <= len(SUBJECTS):
        raise FeedrateError(f"{num_classes} classes cannot be generated: give --classes 2 … {len(SUBJECTS)}")
    for split, num in num_photos.items():
        assert split in SPLITS, split
        if num < num_classes:
            raise FeedrateError(f"--num-{split} {num} is too few for {num_classes} classes: give one each at least")
    if seed < 0:
        raise FeedrateError(f"--seed {seed} is negative: give 0 or more")


def _claim(root: Path, recipe: dict[str, Any]) -> None:
    """Note the recipe in the folder, or find there the same one."""
    path = root / RECIPE_NAME
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FeedrateError(f"{path} cannot be read ({error}): remove {root}") from error
        if found != recipe:
            odd = next((key for key in recipe if not isinstance(found, dict) or found.get(key) != recipe[key]), "more")
            raise FeedrateError(
                f"{root} holds photos of another recipe ('{odd}' differs): remove it, or choose another"
            )
        return
    begun = RECIPE_NAME + PARTIAL_SUFFIX  # left by a run that was killed while it wrote the recipe
    if root.exists() and (not root.is_dir() or any(entry.name != begun for entry in root.iterdir())):
        raise FeedrateError(f"{root} is there and holds no {RECIPE_NAME}: choose an empty or a new folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps(recipe, indent=2).encode() + b"\n")
    except OSError as error:
        raise FeedrateError(f"{root} cannot be written to ({error.strerror}): choose another folder") from error


def _is_complete(path: Path) -> bool:
    """Whether a JPEG is there up to its end mark."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_JPEG_END), os.SEEK_END)
            return file.read() == _JPEG_END
    except OSError:  # missing, or empty
        return False


def _write(path: Path, data: bytes) -> None:
    """Like `atomic_file` without waiting for the disk: what a power cut takes is found incomplete and made again."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise FeedrateError(
            f"{path} cannot be written ({error.strerror}): make room, or choose another folder"
        ) from error
