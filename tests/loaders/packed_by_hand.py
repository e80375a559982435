"""Packed folders written with the standard library and NumPy alone: a witness of the format besides the converters."""

import io
import json
import struct
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["ant", "bee", "cat"]
FORMATS = ("beton", "raw", "shards")


@dataclass(frozen=True)
class Sample:
    """An image as a JPEG file and as pixels, uint8 [height, width, 3]."""

    jpeg: bytes
    pixels: np.ndarray
    label: int
    name: str


def samples_of(image_folder: Path, split: str) -> list[Sample]:
    """All pictures of a folder's split, in the order of their paths."""
    samples = []
    for path in sorted((image_folder / split).rglob("*.jpg")):
        jpeg = path.read_bytes()
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        name = str(path.relative_to(image_folder / split))
        samples.append(Sample(jpeg, pixels, CLASSES.index(path.parent.name), name))
    return samples


def write_packed(
    folder: Path, splits: dict[str, list[Sample]], formats: tuple[str, ...] = FORMATS, samples_per_shard: int = 10
) -> Path:
    """A whole packed folder with these formats; every third sample of .beton is stored raw."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {}
    for split, samples in splits.items():
        columns = {
            "labels": np.array([sample.label for sample in samples], np.int64),
            "widths": np.array([sample.pixels.shape[1] for sample in samples], np.int32),
            "heights": np.array([sample.pixels.shape[0] for sample in samples], np.int32),
            "source_index": np.arange(len(samples)),
        }
        names = [sample.name.encode() for sample in samples]
        columns["names"] = np.frombuffer(b"".join(names), np.uint8)
        columns["name_ends"] = np.cumsum([len(name) for name in names], dtype=np.int64)
        files: dict[str, list[str]] = {}
        if "beton" in formats:
            files["beton"] = [f"{split}.beton"]
            (folder / f"{split}.beton").write_bytes(beton_bytes(_mixed(samples), 1 << 16))
        if "raw" in formats:
            files["raw"] = [f"{split}.npy"]
            columns["raw_position"] = _write_npy(folder / f"{split}.npy", samples)
        if "shards" in formats:
            files["shards"], places = _write_shards(folder, split, samples, samples_per_shard)
            columns.update(places)
        np.savez(folder / f"{split}.samples.npz", **columns)
        described[split] = {
            "num_samples": len(samples),
            "num_bad": 0,
            "samples_per_class": np.bincount(columns["labels"], minlength=len(CLASSES)).tolist(),
            "samples": _file(folder, f"{split}.samples.npz"),
            "formats": {kind: [_file(folder, name) for name in names] for kind, names in files.items()},
            "seek_points": None,
        }
    statistics = {"mean": [120.5, 115.0, 100.25], "std": [60.0, 59.5, 61.0], "split": "train", "num_samples": 37}
    manifest = {
        "classes": CLASSES,
        "class_names": [name.title() for name in CLASSES],
        "splits": described,
        "statistics": {**statistics, "method": "made up"},
        "settings": {},
        "source": {},
        "versions": {},
        "schema_version": 4,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change_manifest(folder: Path, **content) -> None:
    """Replace some of its keys."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


def change_split(folder: Path, split: str, **content) -> None:
    """Replace some keys of what the manifest says of a split."""
    splits = json.loads((folder / "manifest.json").read_text())["splits"]
    change_manifest(folder, splits={**splits, split: {**splits[split], **content}})


def agree(folder: Path) -> None:
    """Make the manifest tell the true sizes of its files, as somebody would who wants damage to pass."""
    splits = json.loads((folder / "manifest.json").read_text())["splits"]
    for split in splits.values():
        split["samples"] = _file(folder, split["samples"]["name"])
        for files in split["formats"].values():
            files[:] = [_file(folder, file["name"]) for file in files]
    change_manifest(folder, splits=splits)


def change_table(folder: Path, split: str, **columns) -> None:
    """Replace columns of a split's table (None: remove them); the manifest agrees."""
    path = folder / f"{split}.samples.npz"
    with np.load(path) as stored:
        content = {**stored, **columns}
    np.savez(path, **{name: column for name, column in content.items() if column is not None})
    agree(folder)


def beton_bytes(samples: list[tuple[bytes, bool, int, int, int]], page_bytes: int) -> bytes:
    """FFCV's container, version 2, with the fields `image` and `label`: (data, is_raw, width, height, label) each."""
    metadata, table = b"", b""
    first = position = -(-(24 + 2 * 1041 + 24 * len(samples)) // page_bytes) * page_bytes
    pages = bytearray()
    for number, (data, is_raw, width, height, label) in enumerate(samples):
        if position % page_bytes + len(data) > page_bytes:
            position = -(-position // page_bytes) * page_bytes
        metadata += struct.pack("<BHHQ3xq", is_raw, width, height, position, label)
        table += struct.pack("<QQQ", number, position, len(data))
        pages += bytes(position - first - len(pages)) + data
        position += len(data)
    pages += bytes(-len(pages) % page_bytes)
    header = struct.pack("<HHIQQ", 2, 2, page_bytes, len(samples), first + len(pages))
    fields = struct.pack("<B16s1024x", 2, b"image") + struct.pack("<B16s1024x", 1, b"label")
    return (header + fields + metadata).ljust(first, b"\0") + bytes(pages) + table


def _mixed(samples: list[Sample]) -> list[tuple[bytes, bool, int, int, int]]:
    mixed = []
    for number, sample in enumerate(samples):
        is_raw = number % 3 == 0
        height, width, _ = sample.pixels.shape
        mixed.append((sample.pixels.tobytes() if is_raw else sample.jpeg, is_raw, width, height, sample.label))
    return mixed


def _write_npy(path: Path, samples: list[Sample]) -> np.ndarray:
    """Write the pixels; where each sample's begin."""
    if len({sample.pixels.shape for sample in samples}) == 1:
        np.save(path, np.stack([sample.pixels for sample in samples]))
    else:
        np.save(path, np.concatenate([sample.pixels.ravel() for sample in samples]))
    return np.cumsum([0, *(sample.pixels.size for sample in samples[:-1])], dtype=np.int64)


def _write_shards(folder: Path, split: str, samples: list[Sample], per_shard: int) -> tuple[list[str], dict]:
    """Write .tar and .idx files; their names, and where each image is."""
    names, places = [], []
    for shard, start in enumerate(range(0, len(samples), per_shard)):
        lines = []
        with tarfile.open(folder / f"{split}-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, sample in enumerate(samples[start : start + per_shard], start):
                line = []
                for kind, data in (("jpg", sample.jpeg), ("cls", str(sample.label).encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{kind}")
                    member.size = len(data)
                    position = tar.offset + 512
                    tar.addfile(member, io.BytesIO(data))
                    line += [kind, str(position), str(len(data)), member.name]
                lines.append(" ".join(line))
                places.append((shard, int(line[1]), len(sample.jpeg)))
        index = "\n".join([f"v1.2 {len(lines)}", *lines, ""])
        (folder / f"{split}-{shard:06d}.idx").write_text(index)
        names += [f"{split}-{shard:06d}.tar", f"{split}-{shard:06d}.idx"]
    shards, positions, sizes = zip(*places, strict=True)
    columns = {
        "shard": np.array(shards, np.int32),
        "shard_position": np.array(positions, np.int64),
        "shard_bytes": np.array(sizes, np.int64),
    }
    return names, columns


def _file(folder: Path, name: str) -> dict:
    data = (folder / name).read_bytes()
    return {"name": name, "num_bytes": len(data), "sha256": sha256(data).hexdigest()}
