"""A folder of generated photos: `train/<class>/<number>.jpg` and `val/<class>/<number>.jpg`."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from loaders.atomic import PARTIAL_SUFFIX, atomic_file
from loaders.errors import FeedrateError

from .crew import run_in_order
from .photos import photo
from .progress import Phase, silent_phase
from .subjects import SUBJECTS

RECIPE_NAME = "recipe.json"
_RECIPE_VERSION = 1  # to be raised when the same seed gives other photos
_CHUNK_PHOTOS = 16
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class PhotoSet:
    """What to generate. Photo n of a split belongs to class n modulo `num_classes`, so classes are equally large."""

    num_train: int = 2000
    num_val: int = 500
    num_classes: int = len(SUBJECTS)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.num_classes <= len(SUBJECTS):
            raise FeedrateError(
                f"--classes {self.num_classes} is outside 2 … {len(SUBJECTS)}: there are {len(SUBJECTS)} things to show"
            )
        for option, num in (("--num-train", self.num_train), ("--num-val", self.num_val)):
            if num < self.num_classes:
                raise FeedrateError(f"{option} {num} is too few for {self.num_classes} classes: give one each at least")
        if self.seed < 0:
            raise FeedrateError(f"--seed {self.seed} is negative: give 0 or more")

    def recipe(self) -> dict[str, int]:
        """What the photos of a folder depend on."""
        return {"version": _RECIPE_VERSION, **asdict(self)}


@dataclass(frozen=True)
class PhotoWriter:
    """The work of the crew: write photos [start, stop) of a split, but keep those that are there."""

    root: Path
    photos: PhotoSet
    split: str

    def __call__(self, task: tuple[int, int], begin: Callable[[int], None]) -> tuple[int, int]:
        """How many were written, and the bytes of all."""
        num_written = num_bytes = 0
        for number in range(*task):
            begin(number)
            path = self.path(number)
            if not _is_complete(path):
                _write(path, photo(self.photos.seed, self.split, number, path.parent.name))
                num_written += 1
            num_bytes += path.stat().st_size
        return num_written, num_bytes

    def path(self, number: int) -> Path:
        name = list(SUBJECTS)[number % self.photos.num_classes]
        return self.root / self.split / name / f"{number // self.photos.num_classes:05d}.jpg"

    def describe(self, item: int) -> str:
        return str(self.path(item))


def write_photo_set(root: Path, photos: PhotoSet, num_workers: int, phase: Phase = silent_phase) -> tuple[int, int]:
    """Fill `root`, or complete it after an interruption; return how many photos were written and how many were there.

    Raises FeedrateError where `root` holds photos of another recipe.
    """
    _claim(root, photos)
    num_written = 0
    for split, num in (("train", photos.num_train), ("val", photos.num_val)):
        writer = PhotoWriter(root, photos, split)
        for number in range(photos.num_classes):
            writer.path(number).parent.mkdir(parents=True, exist_ok=True)
        tasks = [(start, min(start + _CHUNK_PHOTOS, num)) for start in range(0, num, _CHUNK_PHOTOS)]
        with phase(f"photos {split}", num) as advance, closing(run_in_order(writer, tasks, num_workers)) as done:
            for (start, stop), (written, num_bytes) in zip(tasks, done, strict=True):
                num_written += written
                advance(stop - start, num_bytes)
    return num_written, photos.num_train + photos.num_val - num_written


def _claim(root: Path, photos: PhotoSet) -> None:
    """Note the recipe in the folder, or find there the same one."""
    path, recipe = root / RECIPE_NAME, photos.recipe()
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise FeedrateError(f"{path} cannot be read ({error}): remove {root}") from error
        if found != recipe:
            raise FeedrateError(
                f"{root} was generated as {found}, not as {recipe}: remove it, or choose another folder"
            )
        return
    if root.is_dir() and any(root.iterdir()):
        raise FeedrateError(f"{root} is not empty and holds no {RECIPE_NAME}: choose an empty or a new folder")
    root.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(recipe, indent=2).encode())


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
    partial.write_bytes(data)
    os.replace(partial, path)
