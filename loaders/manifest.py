"""`manifest.json`: what a packed folder holds. The one format that converters and loaders share."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .atomic import atomic_file
from .errors import FeedrateError
from .soundness import PACK_AGAIN

MANIFEST_NAME = "manifest.json"
WORK_FOLDER = "packing.partial"  # in a packed folder: all that packing has begun and not ended
SCHEMA_VERSION = 4


class OtherVersion(FeedrateError):
    """A manifest of a version that this does not read."""


@dataclass(frozen=True)
class PackedFile:
    """A file by its name inside the folder, and how to tell that it is whole: bytes and SHA-256 (hexadecimal)."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class PackedSplit:
    """One split.

    num_samples        that are in every format;  samples_per_class  as many as there are classes
    num_bad            of the source that are in none, listed in `bad_samples.jsonl`
    samples            the table of the samples (`loaders.sample_table`)
    formats            files a format: "beton": one;  "shards": .tar and .idx files in order;  "raw": one .npy
    seek_points        where decoding of its JPEGs can begin (`loaders.seek_points`); None: it is not noted
    """

    num_samples: int
    num_bad: int
    samples_per_class: list[int]
    samples: PackedFile
    formats: dict[str, list[PackedFile]]
    seek_points: PackedFile | None


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of red, green and blue, 0-255, and how they came about.

    split  whose pixels were counted;  num_samples  of it that were;  method  in one sentence
    """

    mean: list[float]
    std: list[float]
    split: str
    num_samples: int
    method: str


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    classes      what the source calls them, one a label;  class_names  for people, as many
    splits       by name ("train", "val")
    settings     how it was packed;  source  what it was packed from;  versions  of the tools that did it
    """

    classes: list[str]
    class_names: list[str]
    splits: dict[str, PackedSplit]
    statistics: Statistics
    settings: dict[str, Any]
    source: dict[str, Any]
    versions: dict[str, str]
    schema_version: int = field(default=SCHEMA_VERSION)

    def files(self) -> list[PackedFile]:
        """All that it names, in its order: of each split the table first."""
        return [
            file
            for split in self.splits.values()
            for file in (
                split.samples,
                *(file for files in split.formats.values() for file in files),
                *([] if split.seek_points is None else [split.seek_points]),
            )
        ]


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write it atomically and return its path."""
    path = folder / MANIFEST_NAME
    with atomic_file(path) as file:
        content = json.dumps(asdict(manifest), indent=2, ensure_ascii=False)
        file.write(content.encode("utf-8", "backslashreplace") + b"\n")  # names that are no UTF-8: as JSON escapes
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a packed folder, and that its files are there in full size.

    Raises FeedrateError naming the first thing that is wrong.
    """
    manifest = parse_manifest(folder)
    for file in manifest.files():
        if fault := fault_of(folder, file):
            raise FeedrateError(fault)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read and check the manifest alone, and none of the files it names. Raises FeedrateError."""
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise OtherVersion(f"{path} has schema version {version}, this reads {SCHEMA_VERSION}: {PACK_AGAIN}")
        return _manifest_of(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FeedrateError):
            raise
        raise FeedrateError(f"{path} is not a manifest ({error}): {PACK_AGAIN}") from error


def _manifest_of(content: dict[str, Any]) -> Manifest:
    """Build it from JSON. Raises KeyError, TypeError or ValueError on what does not belong."""
    splits = {}
    for name, split in content["splits"].items():
        formats = {kind: [_typed(PackedFile, file) for file in files] for kind, files in split["formats"].items()}
        if not formats:
            raise ValueError(f"split '{name}' is there in no format")
        points = split["seek_points"]
        content_of = {
            **split,
            "samples": _typed(PackedFile, split["samples"]),
            "formats": formats,
            "seek_points": None if points is None else _typed(PackedFile, points),
        }
        splits[name] = _typed(PackedSplit, content_of)
        if len(splits[name].samples_per_class) != len(content["classes"]):
            raise ValueError(f"split '{name}' does not count every class")
    if not splits:
        raise ValueError("it has no split")
    statistics = _typed(Statistics, content["statistics"])
    if not len(statistics.mean) == len(statistics.std) == 3:
        raise ValueError("its statistics are not of three channels")
    if not all(type(value) in (int, float) for value in (*statistics.mean, *statistics.std)):
        raise TypeError("its statistics are not numbers")
    manifest: Manifest = _typed(Manifest, {**content, "splits": splits, "statistics": statistics})
    if len(manifest.classes) != len(manifest.class_names):
        raise ValueError("it has not one name for each class")
    if not all(isinstance(name, str) for name in (*manifest.classes, *manifest.class_names)):
        raise TypeError("a class has a name that is no text")
    return manifest


def _typed(kind: Any, content: dict[str, Any]) -> Any:
    """An instance of the dataclass `kind`, with the outermost type of each value checked."""
    made = kind(**content)
    for item in fields(kind):
        expected: Any = getattr(item.type, "__origin__", item.type)
        value = getattr(made, item.name)
        if expected is not Any and (not isinstance(value, expected) or isinstance(value, bool)):
            raise TypeError(f"'{item.name}' is {value!r:.40}")
    return made


def fault_of(folder: Path, file: PackedFile) -> str | None:
    """A sentence about a file that is not in the folder in full size; None where it is. Its bytes are not read."""
    path = folder / file.name
    if "/" in file.name or file.name in ("", ".", ".."):
        return f"{MANIFEST_NAME} names '{file.name}', which is not a file beside it: {PACK_AGAIN}"
    if not path.is_file():
        return f"{path} is named in {MANIFEST_NAME} but missing: copy it there, or {PACK_AGAIN}"
    if path.stat().st_size != file.num_bytes:
        return (
            f"{path} has {path.stat().st_size:,} bytes and {MANIFEST_NAME} says {file.num_bytes:,}:"
            f" it was cut short or replaced, copy it again, or {PACK_AGAIN}"
        )
    return None
