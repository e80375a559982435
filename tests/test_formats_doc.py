"""docs/formats.md tells the truth: its programs run as written on a packed folder and print what was packed."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY, TIMEOUT_S, environment
from PIL import Image

from converters.encode import Encoding
from converters.packing import PackSettings, pack
from converters.samples import BadSample, Stored
from converters.split_pass import Rules
from loaders.native import library
from loaders.packed_folder import open_packed
from loaders.sample_table import COLUMNS, SampleTable

CLASSES = ("ant", "bee", "cat")
NUM = 37
DOC = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")


def _programs() -> dict[str, str]:
    """The programs in the order of the document, by a name: the package each is about."""
    names = ["ffcv", "beton", "webdataset", "dali", "shards", "raw", "table", "seek", "manifest", "bad"]
    return dict(zip(names, re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL), strict=True))


PROGRAMS = _programs()


class _Files:
    """A folder of images, and one that cannot be used, as what is packed. Fulfils `converters.samples.Samples`."""

    num_ignored = 0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = sorted(folder.rglob("*.jpg"))
        self.classes = CLASSES
        self.class_names = tuple(name.title() for name in self.classes)
        self.labels = np.array([self.classes.index(path.parent.name) for path in self._paths])
        self.num_bytes = np.array([path.stat().st_size for path in self._paths])
        self.bad = [BadSample("ant/gone.jpg", str(folder / "ant/gone.jpg"), "it is a link to nothing")]
        self.notes: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def stored(self, index: int) -> Stored:
        path = self._paths[index]
        return Stored(str(path.relative_to(self._folder)), str(path))

    def fingerprint(self) -> str:
        return sha256(repr(self._paths).encode()).hexdigest()


def _write_noise(folder: Path, num: int) -> None:
    """Images of several sizes that no JPEG makes small, so that there are more shards than one."""
    for number in range(num):
        pixels = np.random.default_rng(number).integers(0, 256, (150 + number, 200, 3), np.uint8)
        path = folder / CLASSES[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data/imagenet-packed in every format: `train` in several shards, its .beton part JPEG, part raw."""
    place = tmp_path_factory.mktemp("place")
    packed = place / "data" / "imagenet-packed"
    splits = {}
    for split, num in (("train", NUM), ("val", 7)):
        _write_noise(place / "images" / split, num)
        splits[split] = _Files(place / "images" / split)
    settings = PackSettings(
        Encoding(write_mode="mix", seek_points=library.load() is not None),
        ("beton", "shards", "raw"),
        shard_bytes=1 << 20,
    )
    pack(splits, packed, settings, num_workers=0, rules=Rules(skip_bad=True, most_bad=9))
    assert len(list(packed.glob("train-*.tar"))) > 1
    assert 0 < open_packed(packed, "train").is_raw.sum() < NUM
    return place


def run(place, program) -> list[str]:
    """What it prints, by lines; in a process of its own, since FFCV changes torch's threads."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program]],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


@pytest.mark.parametrize("program", ["ffcv", "beton", "webdataset", "dali", "shards", "raw"])
def test_a_program_prints_every_sample_that_we_read(place, program):
    needed = {"ffcv": "ffcv", "webdataset": "webdataset", "dali": "nvidia.dali"}.get(program)
    if needed is not None and not _is_installed(needed):
        pytest.skip(f"{needed} is not installed")
    records = open_packed(place / "data" / "imagenet-packed", "train")
    labels = records.labels.tolist()
    expected = [
        f"({height}, {width}, 3) {label}"
        for height, width, label in zip(records.heights, records.widths, labels, strict=True)
    ]
    if program == "ffcv":
        expected = [f"(32, 224, 224, 3) {labels[:32]}", f"(5, 224, 224, 3) {labels[32:]}"]
    elif program == "dali":
        expected = expected[:32]  # one batch
    assert run(place, program) == expected


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def test_the_program_of_the_table_prints_names_and_labels(place):
    path = place / "data" / "imagenet-packed" / "train.samples.npz"
    table = SampleTable(path, NUM)
    lines = [f"{name} {label}" for name, label in zip(table.names(), table.labels(3), strict=True)]
    assert run(place, "table") == lines and len(set(lines)) == NUM


@pytest.mark.skipif(library.load() is None, reason=f"no native kernel: {library.why_not()}")
def test_the_program_of_seek_points_counts_them_and_finds_the_last(place):
    records = open_packed(place / "data" / "imagenet-packed", "train", "shards")
    lines = run(place, "seek")
    assert len(lines) == NUM
    for index, line in enumerate(lines):
        num_points, last = map(int, line.split())
        rows, columns = -(-int(records.heights[index]) // 16), -(-int(records.widths[index]) // 16)  # 4:2:0
        assert num_points == rows * -(-columns // 8)
        assert 0.8 < last / len(records.read(index)) < 1


def test_the_program_of_the_manifest_knows_every_file_and_sees_damage(place):
    packed = place / "data" / "imagenet-packed"
    others = {"manifest.json", "bad_samples.jsonl"}
    names = {path.name for path in packed.iterdir()} - others
    assert sorted(run(place, "manifest")) == sorted(f"{name} True" for name in names)
    stored = (packed / "val.npy").read_bytes()
    try:
        (packed / "val.npy").write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
        assert [line for line in run(place, "manifest") if "False" in line] == ["val.npy False"]
    finally:
        (packed / "val.npy").write_bytes(stored)


def test_the_program_of_bad_samples_prints_them(place):
    reason = "it is a link to nothing"
    assert run(place, "bad") == [f"train ant/gone.jpg {reason}", f"val ant/gone.jpg {reason}"]


def test_the_program_of_bad_samples_runs_where_there_are_none(place):
    listed = place / "data" / "imagenet-packed" / "bad_samples.jsonl"
    try:
        listed.rename(place / "aside")
        assert run(place, "bad") == []
    finally:
        (place / "aside").rename(listed)


def test_programs_need_nothing_of_ours_and_fit_on_a_screen():
    for program in PROGRAMS.values():
        modules = {
            name.name for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Import) for name in node.names
        }
        modules |= {node.module for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in modules if name.split(".")[0] in ("loaders", "converters", "engine")]
        assert len(program.splitlines()) <= 25


def test_every_key_and_column_is_described(place):
    manifest = json.loads((place / "data" / "imagenet-packed" / "manifest.json").read_bytes())
    split = manifest["splits"]["train"]
    parts = [manifest, split, split["samples"], split["formats"], manifest["statistics"], manifest["settings"]]
    bad = json.loads((place / "data" / "imagenet-packed" / "bad_samples.jsonl").read_text().splitlines()[0])
    names = [key for part in (*parts, manifest["source"], COLUMNS, bad) for key in part]
    assert not [name for name in names if f"`{name}`" not in DOC]


def test_the_index_is_the_one_that_dalis_own_tool_writes(place, tmp_path):
    if not _is_installed("wds2idx"):
        pytest.skip("DALI is not installed")
    for tar in (place / "data" / "imagenet-packed").glob("*.tar"):
        command = [sys.executable, "-m", "wds2idx", str(tar), str(tmp_path / "idx")]
        subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=TIMEOUT_S)
        assert (tmp_path / "idx").read_text() == tar.with_suffix(".idx").read_text()


def test_positions_in_the_document_are_those_of_the_file(place):
    """The numbers of the .beton section, read once more by hand."""
    with open(place / "data" / "imagenet-packed" / "train.beton", "rb") as file:
        beton = file.read()
    assert beton[:4] == b"\2\0\2\0" and beton[4:8] == (8 << 20).to_bytes(4, "little")
    assert beton[24:30] == b"\2image" and beton[24 + 1041 :][:6] == b"\1label"
    assert not any(beton[24 + 17 : 24 + 1041]) and not any(beton[24 + 1041 + 17 : 2106])
    table = int.from_bytes(beton[16:24], "little")
    assert table % (8 << 20) == 0 and len(beton) - table == NUM * 24
    assert beton[2106 + 5 : 2106 + 13] == beton[table + 8 : table + 16]
