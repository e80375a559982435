"""The same few pictures in every format that loaders read, to run one test over all of them."""

import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import smooth_picture
from PIL import Image

from loaders.errors import FeedrateError
from loaders.records import open_records

# every loader, in every way of resizing it has; those that read samples
LOADERS = [("torchvision", "exact"), ("turbo", "area"), ("turbo", "exact"), ("synthetic", "area")]
READING_LOADERS = LOADERS[:3]

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
    if resize == "exact":
        part = part.resize((size_px, size_px), Image.Resampling.BILINEAR)
    elif part.size != (size_px, size_px):
        part = Image.fromarray(cv2.resize(np.asarray(part), (size_px, size_px), interpolation=cv2.INTER_AREA))
    return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part)


def refused(path: Path, split: str = "train") -> str:
    """The one sentence with which this split is refused."""
    with pytest.raises(FeedrateError) as caught:
        open_records(path, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)
