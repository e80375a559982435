"""How a packed folder came about, in words."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loaders.manifest import Manifest

from ..byte_counts import readable_bytes
from ..encode import holds_jpegs
from ..out_folder import BAD_SAMPLES_NAME

Fact = tuple[str, str]  # (what it is about, or "" where it goes on; the words)


def facts(folder: Path, manifest: Manifest) -> Iterator[Fact]:
    """What it was packed from, what became of it, the settings, and the channel statistics."""
    yield from _origin(folder, manifest)
    yield from _how_packed(manifest.settings)
    for name, split in manifest.splits.items():
        if split.seek_points is not None:
            size = readable_bytes(split.seek_points.num_bytes)
            yield f"seek points, {name}", f"{size}: a crop decodes little more of a JPEG than it needs"
    yield from _statistics(manifest)


def _origin(folder: Path, manifest: Manifest) -> Iterator[Fact]:
    source = manifest.source
    told = [str(source[name]) for name in ("dataset", "path") if source.get(name)]
    if told:
        yield "from", ", ".join(told)
    for name, split in manifest.splits.items():
        num_kept = source.get("num_original", {}).get(name)
        if num_kept is not None and holds_jpegs(split.formats, manifest.settings.get("write_mode")):
            yield f"kept, {name}", f"{num_kept:,} JPEGs as they came, to the byte ({num_kept / split.num_samples:.1%})"
        num_ignored = source.get("num_ignored", {}).get(name)
        if num_ignored:
            yield f"ignored, {name}", f"{num_ignored:,} files that by their names are no images"
        if split.num_bad:
            yield f"bad, {name}", f"{split.num_bad:,} left out: {_reasons(folder, name)}"
        for note, value in source.get("notes", {}).get(name, {}).items():
            yield f"note, {name}", _note(note, value, ": ")
    if not any(split.num_bad for split in manifest.splits.values()):
        yield "bad", "none"


def _note(name: str, value: object, between: str = " ") -> str:
    """What listing a source noted, in words: a number or a text, or several, some of them under names of their own."""
    if name == "ignored_suffixes" and isinstance(value, dict):
        words = ", ".join(f"{num:,} {suffix or 'without a suffix'}" for suffix, num in value.items())
    elif isinstance(value, dict):
        words = ", ".join(_note(part, number) for part, number in value.items())
    else:
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{name.removeprefix('num_').replace('_', ' ')}{between}{words}"


def _reasons(folder: Path, split: str) -> str:
    """Why samples are missing, the most frequent reasons first."""
    try:
        lines = [json.loads(line) for line in (folder / BAD_SAMPLES_NAME).read_text().splitlines()]
        reasons = Counter(str(line["reason"]) for line in lines if line["split"] == split)
    except (OSError, ValueError, KeyError, TypeError):
        return f"{BAD_SAMPLES_NAME}, which should say why, cannot be read"
    told = "; ".join(f"{num:,} × {reason}" for reason, num in reasons.most_common(3))
    return f"{told} (all in {BAD_SAMPLES_NAME})"


def _how_packed(settings: Mapping[str, Any]) -> Iterator[Fact]:
    """The settings in words; those that a manifest does not tell are left out."""
    if "limit_px" in settings:
        limit, side = settings["limit_px"], settings.get("limited", "longest")
        yield "size", "as they came" if limit is None else f"shrunk where the {side} side exceeded {limit} px"
    if "write_mode" in settings:
        share = settings.get("jpeg_share", 0.5)
        modes = {"jpg": "JPEG", "raw": "pixels", "mix": f"JPEG ({share:.0%} of the images, by chance) or pixels"}
        if "beton" in settings.get("formats", ()):
            yield "in .beton", modes.get(settings["write_mode"], str(settings["write_mode"]))
        if "quality" in settings and holds_jpegs(settings.get("formats", ()), settings.get("write_mode")):
            yield "quality", f"{settings['quality']}, where a JPEG had to be made"
            if settings.get("restarts"):
                yield "restarts", "JPEGs coded anew without loss, with markers: a crop decodes only what it needs"
    if "apply_exif" in settings:
        yield "EXIF", "turned upright as it says" if settings["apply_exif"] else "not applied, as torchvision does"
    if "check" in settings:
        looks = {"full": "the data of every image were decoded once", "structure": "kept images by their markers alone"}
        yield "checked", looks.get(settings["check"], str(settings["check"]))
    if "order" in settings:
        shuffled = f"shuffled with seed {settings.get('seed')}"
        yield "order", shuffled if settings["order"] == "shuffled" else "the source's own"


def _statistics(manifest: Manifest) -> Iterator[Fact]:
    statistics = manifest.statistics
    mean, std = (" ".join(f"{value:.2f}" for value in values) for values in (statistics.mean, statistics.std))
    yield "mean", f"{mean} (red, green, blue; 0–255)"
    yield "std", std
    yield "", f"over {statistics.num_samples:,} samples of '{statistics.split}': {statistics.method}"


def printable(text: str) -> str:
    """With question marks for what cannot be printed, since the names in a source can be anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
