"""CIFAR as a source: raw pixels, called by file and number."""

import tarfile

import numpy as np
from imagenet_forms import open_as, write_cifar
from pictures import smooth_picture


def test_samples_are_raw_pixels_with_their_places(tmp_path):
    write_cifar(tmp_path)
    splits = open_as(tmp_path, "cifar10")
    assert list(splits) == ["train", "val"] and [len(samples) for samples in splits.values()] == [15, 4]
    train = splits["train"]
    assert train.classes == train.class_names == ("airplane", "bird", "cat")
    assert train.labels.tolist() == [0, 1, 2] * 5 and set(train.num_bytes) == {3072}
    stored = train.stored(7)
    assert (stored.name, stored.raw_size) == ("data_batch_3/1", (32, 32))
    assert stored.where() == f"{tmp_path / 'cifar-10-batches-bin'}, data_batch_3/1"
    assert np.array_equal(stored.read().reshape(32, 32, 3), smooth_picture(32, 32, 21))


def test_the_fingerprint_is_that_of_the_pixels_and_not_of_their_form(tmp_path):
    write_cifar(tmp_path)
    before = {split: samples.fingerprint() for split, samples in open_as(tmp_path, "cifar10").items()}
    folder = tmp_path / "cifar-10-batches-bin"
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    packed = open_as(tmp_path / "cifar-10-binary.tar.gz", "cifar10")
    assert {split: samples.fingerprint() for split, samples in packed.items()} == before
    file = folder / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    after = open_as(tmp_path, "cifar10")
    assert after["train"].fingerprint() != before["train"] and after["val"].fingerprint() == before["val"]
