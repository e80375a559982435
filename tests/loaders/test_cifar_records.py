"""CIFAR's python archives: read as they are, and never trusted with code."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from stored_samples import CIFAR_COUNTS, cifar_batch, cifar_pixels, python2_pickle, refused, write_cifar10

from loaders.records import list_splits, open_records


@pytest.fixture
def root(tmp_path) -> Path:
    return write_cifar10(tmp_path)


@pytest.fixture
def cifar100(tmp_path) -> Path:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    names = [f"class{n:02d}".encode() for n in range(100)]
    (folder / "meta").write_bytes(python2_pickle({b"fine_label_names": names, b"coarse_label_names": names[:20]}))
    for name, count in (("train", 12), ("test", 5)):
        labels = [(n * 13) % 100 for n in range(count)]
        (folder / name).write_bytes(cifar_batch(cifar_pixels(count, 9), labels, b"fine_labels"))
    return folder


def packed(folder: Path) -> Path:
    path = folder.parent / {"cifar-10-batches-py": "cifar-10-python.tar.gz"}.get(folder.name, "cifar-100-python.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path


def expect_cifar10(records, files: dict[str, int], first_seed: int) -> None:
    pixels = np.concatenate([cifar_pixels(count, first_seed + n) for n, count in enumerate(files.values())])
    assert records.classes == ("ant", "bee", "cat")
    assert records.labels.tolist() == [n % 3 for count in files.values() for n in range(count)]
    assert records.is_raw.all() and set(records.widths) == set(records.heights) == {32}
    for index in range(len(records)):
        assert np.array_equal(records.read(index).reshape(32, 32, 3), pixels[index])


def test_both_splits_of_cifar10_are_read_from_every_form_of_the_archive(root):
    folder = root / "cifar-10-batches-py"
    tar = packed(folder)
    (root / "only tar").mkdir()
    alone = tar.rename(root / "only tar" / tar.name)
    for path in (root, folder, alone, alone.parent):
        assert list_splits(path) == ("train", "val")
        expect_cifar10(open_records(path, "train"), CIFAR_COUNTS, 0)
        expect_cifar10(open_records(path, "val"), {"test_batch": 23}, 5)


def test_cifar100_has_its_fine_labels(cifar100):
    for path in (cifar100, cifar100.parent, packed(cifar100)):
        records = open_records(path, "train")
        assert len(records.classes) == 100 and records.labels.tolist() == [(n * 13) % 100 for n in range(12)]
        assert len(open_records(path, "val")) == 5


def test_samples_are_read_only_views_and_their_places_are_told(root):
    records = open_records(root, "train")
    with pytest.raises(ValueError, match="read-only"):
        records.read(0)[0] = 1
    assert records.read(3).base is not None
    assert records.where(0).endswith("data_batch_1, image 0")
    assert records.where(9).endswith("data_batch_2, image 0")
    assert records.where(36).endswith("data_batch_5, image 5")
    again = pickle.loads(pickle.dumps(records))
    assert np.array_equal(again.read(36), records.read(36))


def test_arrays_pickled_by_todays_numpy_are_read_too(root):
    folder = root / "cifar-10-batches-py"
    content = {
        b"data": cifar_pixels(8, 1).transpose(0, 3, 1, 2).reshape(8, -1).copy(),
        b"labels": [0, 1, 2, 0, 1, 2, 0, 1],
    }
    for protocol in (2, 3, 4):
        (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=protocol))
        expect_cifar10(open_records(root, "train"), CIFAR_COUNTS, 0)


class Attack:
    """Unpickled carelessly, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_run(root, tmp_path, protocol):
    touched = tmp_path / "touched"
    content = pickle.dumps({b"data": Attack(touched), b"labels": [0]}, protocol=protocol)
    pickle.loads(content)
    assert touched.exists()  # the attack works where it is let
    touched.unlink()
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    message = refused(root)
    assert "data_batch_3" in message and "could run any code" in message
    assert not touched.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ],
)
def test_names_that_arrays_do_not_need_are_refused(root, content):
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(content)
    assert "batches.meta" in refused(root)


def test_missing_files_are_named(root):
    folder = root / "cifar-10-batches-py"
    (folder / "data_batch_4").unlink()
    assert "data_batch_4" in refused(root)
    tar = packed(folder)
    assert "data_batch_4" in refused(tar)
    assert len(open_records(tar, "val")) == 23


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"noise",
        python2_pickle({b"labels": [0]}),
        python2_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
        python2_pickle({b"data": np.zeros((1, 100), np.uint8), b"labels": [0]}),
        python2_pickle({b"data": np.zeros((1, 3072), np.uint8), b"labels": [3]}),
    ],
    ids=["empty", "noise", "no data", "too many images", "wrong shape", "label without class"],
)
def test_damaged_files_are_named(root, content):
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    assert "data_batch_1" in refused(root)


def test_a_damaged_tar_is_refused(root):
    tar = packed(root / "cifar-10-batches-py")
    tar.write_bytes(tar.read_bytes()[:3000])
    assert "download it again" in refused(tar)
    tar.write_bytes(b"noise")
    assert "download it again" in refused(tar)


def test_two_archives_side_by_side_must_be_told_apart(root, cifar100):
    message = refused(root)
    assert "cifar-10-batches-py" in message and "cifar-100-python" in message
