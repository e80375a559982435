"""CIFAR in its binary form: the same samples as the form for Python, from the same pictures."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from stored_samples import CIFAR_COUNTS, cifar_batch, cifar_pixels, python2_pickle, refused, write_cifar10

from loaders.records import list_splits, open_records

COUNTS = {**CIFAR_COUNTS, "test_batch": 23}


def records_of(pixels: np.ndarray, *labels: list[int]) -> bytes:
    """Label bytes and then the planes, an image after the other."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return b"".join(bytes(own) + plane.tobytes() for *own, plane in zip(*labels, planes, strict=True))


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "binary" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("ant\nbee\ncat\n\n")
    for seed, (name, count) in enumerate(COUNTS.items()):
        content = records_of(cifar_pixels(count, seed), [n % 3 for n in range(count)])
        (folder / f"{name}.bin").write_bytes(content)
    return folder.parent


def same(binary, python) -> None:
    assert binary.classes == python.classes and len(binary) == len(python)
    assert binary.labels.tolist() == python.labels.tolist() and binary.labels.dtype == python.labels.dtype
    assert binary.is_raw.all() and set(binary.widths) == set(binary.heights) == {32}
    for index in range(len(python)):
        assert np.array_equal(binary.read(index), python.read(index))
        assert binary.name(index) == python.name(index)


def test_cifar10_is_the_same_as_in_the_form_for_python(root, tmp_path):
    reference = write_cifar10(tmp_path / "python")
    folder = root / "cifar-10-batches-bin"
    alone = tmp_path / "alone" / "cifar-10-binary.tar.gz"
    alone.parent.mkdir()
    with tarfile.open(alone, "w:gz") as tar:
        tar.add(folder, folder.name)
    for path in (root, folder, alone, alone.parent):
        assert list_splits(path) == ("train", "val")
        for split in ("train", "val"):
            same(open_records(path, split), open_records(reference, split))


def test_cifar100_has_its_fine_labels(tmp_path):
    python, binary = tmp_path / "cifar-100-python", tmp_path / "b" / "cifar-100-binary"
    names = [f"class{n:02d}" for n in range(100)]
    for folder in (python, binary):
        folder.mkdir(parents=True)
    (python / "meta").write_bytes(python2_pickle({b"fine_label_names": [name.encode() for name in names]}))
    (binary / "fine_label_names.txt").write_text("\n".join([*names, ""]))
    for name, count in (("train", 12), ("test", 5)):
        pixels, fine = cifar_pixels(count, 9), [(n * 13) % 100 for n in range(count)]
        (python / name).write_bytes(cifar_batch(pixels, fine, b"fine_labels"))
        (binary / f"{name}.bin").write_bytes(records_of(pixels, [label // 5 for label in fine], fine))
    for split in ("train", "val"):
        same(open_records(binary, split), open_records(python, split))
        same(open_records(binary.parent, split), open_records(python, split))


def test_both_forms_side_by_side_are_one_data_set(root):
    write_cifar10(root)
    assert len(open_records(root, "train")) == 37


def test_places_name_the_file(root):
    assert open_records(root, "train").where(9).endswith("cifar-10-batches-bin/data_batch_2.bin, image 0")


@pytest.mark.parametrize(
    "content",
    [b"", b"noise", records_of(cifar_pixels(2, 0), [0, 1])[:-1], records_of(cifar_pixels(2, 0), [0, 3])],
    ids=["empty", "noise", "cut short", "label without class"],
)
def test_damaged_files_are_named(root, content):
    (root / "cifar-10-batches-bin" / "data_batch_4.bin").write_bytes(content)
    message = refused(root)
    assert "data_batch_4.bin" in message and "download it again" in message


def test_missing_files_are_named(root):
    (root / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    assert "data_batch_4.bin" in refused(root)
