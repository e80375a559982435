"""The same few pictures in every format that loaders read, to run one test over all of them."""

import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from packed_by_hand import FORMATS
from pictures import smooth_picture
from PIL import Image

from loaders.choose import choose_loader
from loaders.errors import FeedrateError
from loaders.records import open_records

RECORD_KINDS = ("folder", "cifar", *FORMATS)
_WITH_JPEGS = ("folder", "beton", "shards")


@dataclass(frozen=True)
class LoaderCase:
    """A loader in one way of resizing, and what the tests that hold for all loaders must know of it.

    kinds      the kinds of records it can read; where the kind does not matter, tests take the first
    tolerance  by how many levels, 0-255, a pixel may differ from `plain_image`; None: its pixels are no sample's
    """

    name: str
    resize: str
    kinds: tuple[str, ...] = RECORD_KINDS
    tolerance: int | None = 0

    @property
    def reads_jpegs(self) -> bool:
        """Whether a sample can be damaged for it, by damaging a JPEG file."""
        return any(kind in _WITH_JPEGS for kind in self.kinds)

    def __str__(self) -> str:
        return f"{self.name}-{self.resize}"


# every loader, in every way of resizing it has but bicubic, which goes where `exact` goes
LOADERS = [
    LoaderCase("torchvision", "exact"),
    LoaderCase("turbo", "area"),
    LoaderCase("turbo", "exact"),
    LoaderCase("turbo", "device", ("raw", "cifar")),
    LoaderCase("ffcv", "area", ("beton",)),
    LoaderCase("dali", "exact", tolerance=30),  # at the outermost pixels; test_dali_loader.py is stricter
    LoaderCase("resident", "exact"),
    LoaderCase("resident", "area"),
    LoaderCase("resident", "device"),
    LoaderCase("synthetic", "area", tolerance=None),
]
READING_LOADERS = [case for case in LOADERS if case.tolerance is not None]
BICUBIC_LOADERS = [
    LoaderCase("torchvision", "bicubic"),
    LoaderCase("turbo", "bicubic"),
    LoaderCase("dali", "bicubic", tolerance=30),
    LoaderCase("resident", "bicubic"),
]


def for_each(cases: list[LoaderCase]) -> pytest.MarkDecorator:
    """Run a test for these loaders. It may take `case`, `name`, `resize`, and `samples`: 37 that the loader reads."""
    return pytest.mark.parametrize("case", [_param(case, case) for case in cases], ids=str)


def for_each_over_all_records(cases: list[LoaderCase]) -> pytest.MarkDecorator:
    """The same over every kind of records that the loader reads; `records` are 37 samples of that kind."""
    pairs = [_param(case, case, kind) for case in cases for kind in case.kinds]
    return pytest.mark.parametrize(("case", "kind"), pairs, ids=str)


def _param(case: LoaderCase, *values: object) -> object:
    try:
        choose_loader(case.name)
    except FeedrateError as error:  # not installed
        return pytest.param(*values, marks=pytest.mark.skip(reason=str(error)))
    return pytest.param(*values)


CIFAR_COUNTS = {"data_batch_1": 9, "data_batch_2": 8, "data_batch_3": 7, "data_batch_4": 7, "data_batch_5": 6}


def _text(value: bytes) -> bytes:
    """A Python 2 string in a pickle."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _array(array: np.ndarray) -> bytes:
    make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + _number(0) + b"t" + _text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + _text(b"u1") + _number(0) + _number(1) + b"tR"
    kind += b"(" + _number(3) + _text(b"|") + b"NNN" + _number(-1) + _number(-1) + _number(0) + b"tb"
    shape = b"(" + b"".join(_number(side) for side in array.shape) + b"t"
    return make + b"(" + _number(1) + shape + kind + b"I00\n" + _text(array.tobytes()) + b"tb"


def _list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def python2_pickle(entries: dict[bytes, np.ndarray | list[int] | list[bytes]]) -> bytes:
    """What Python 2 with an old NumPy wrote for a dictionary: the form of the real CIFAR files."""
    content = b"\x80\x02}("
    for key, value in entries.items():
        if isinstance(value, np.ndarray):
            stored = _array(value)
        else:
            stored = _list([_number(item) if isinstance(item, int) else _text(item) for item in value])
        content += _text(key) + stored
    return content + b"u."


def cifar_pixels(count: int, seed: int) -> np.ndarray:
    """uint8 [count, 32, 32, 3]"""
    return np.stack([smooth_picture(32, 32, seed * 1000 + n) for n in range(count)])


def cifar_batch(pixels: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)
    return python2_pickle({b"data": planes, key: labels})


def write_cifar10(root: Path) -> Path:
    """`root/cifar-10-batches-py` with 37 training and 23 test images of 3 classes."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(python2_pickle({b"label_names": [b"ant", b"bee", b"cat"]}))
    for seed, (name, count) in enumerate({**CIFAR_COUNTS, "test_batch": 23}.items()):
        (folder / name).write_bytes(cifar_batch(cifar_pixels(count, seed), [n % 3 for n in range(count)]))
    return root


def plain_image(records, index, rect, flip, size_px, fill=(0, 0, 0), resize="exact") -> np.ndarray:
    """uint8 [size_px, size_px, 3], by other means than the loaders': what their pixels must be."""
    stored = records.read(index)
    if records.is_raw[index]:
        image = Image.fromarray(stored.reshape(records.heights[index], records.widths[index], 3))
    else:
        image = Image.open(BytesIO(stored)).convert("RGB")
    left, top, width, height = (int(side) for side in rect)
    part = Image.new("RGB", (width, height), fill)
    part.paste(image, (-left, -top))
    if resize != "area":
        how = Image.Resampling.BICUBIC if resize == "bicubic" else Image.Resampling.BILINEAR
        part = part.resize((size_px, size_px), how)
    elif part.size != (size_px, size_px):
        part = Image.fromarray(cv2.resize(np.asarray(part), (size_px, size_px), interpolation=cv2.INTER_AREA))
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)


def refused(path: Path, split: str = "train") -> str:
    """The one sentence with which this split is refused."""
    with pytest.raises(FeedrateError) as caught:
        open_records(path, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)
