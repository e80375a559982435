"""`manifest.json`: what a packed folder holds. The one format that converters and loaders share."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .atomic import atomic_file
from .errors import FeedrateError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PackedSplit:
    """One packed file: its name inside the folder, what it counts, and how to tell that it is whole."""

    file: str
    num_samples: int
    num_bytes: int
    sha256: str
    samples_per_class: list[int]


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    classes       names, one a label
    splits        by name ("train", "val")
    channel_mean  of red, green, blue over all stored pixels of `statistics_split`, 0-255; channel_std likewise
    settings      how it was packed;  source  what it was packed from;  versions  of the tools that did it
    """

    classes: list[str]
    splits: dict[str, PackedSplit]
    channel_mean: list[float]
    channel_std: list[float]
    statistics_split: str
    settings: dict[str, Any]
    source: dict[str, Any]
    versions: dict[str, str]
    schema_version: int = field(default=SCHEMA_VERSION)


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write it atomically and return its path."""
    path = folder / MANIFEST_NAME
    with atomic_file(path) as file:
        file.write(json.dumps(asdict(manifest), indent=2, ensure_ascii=False).encode() + b"\n")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a packed folder, and that its files are there in full size.

    Raises FeedrateError naming the first thing that is wrong.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            raise FeedrateError(
                f"{path} has schema version {content['schema_version']}, this reads {SCHEMA_VERSION}: pack it again"
            )
        content["splits"] = {name: PackedSplit(**split) for name, split in content["splits"].items()}
        manifest = Manifest(**content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FeedrateError(f"{path} is not a manifest ({error}): pack the data set again") from error
    for split in manifest.splits.values():
        _check_file(folder / split.file, split)
    return manifest


def _check_file(path: Path, split: PackedSplit) -> None:
    if not path.is_file():
        raise FeedrateError(f"{path} is named in {MANIFEST_NAME} but missing: pack the data set again")
    if path.stat().st_size != split.num_bytes:
        raise FeedrateError(
            f"{path} has {path.stat().st_size:,} bytes and {MANIFEST_NAME} says {split.num_bytes:,}:"
            " it was cut short or replaced, pack the data set again"
        )
