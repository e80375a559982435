"""Where many samples lie in memory against what reading them one by one gives."""

import ctypes

import numpy as np
import pytest
import torch

from loaders.addresses import address_of, addresses_of
from loaders.beton_records import BetonRecords
from loaders.crops import CenterCrop
from loaders.errors import LoaderError
from loaders.mapped_file import MappedRecords
from loaders.native import library
from loaders.plan import Sequential, Shuffled, View
from loaders.records import open_records
from loaders.seek_points import SeekPoints

ADDRESSED = ("beton", "shards", "raw", "cifar")


def _bytes_at(address, size):
    return ctypes.string_at(int(address), int(size))


@pytest.mark.parametrize("kind", ADDRESSED)
def test_at_each_address_lie_the_bytes_that_reading_gives(records):
    ids = np.array([36, 0, 5, 5, 17, 1])
    held, addresses, sizes = addresses_of(records)(ids)
    for index, address, size in zip(ids.tolist(), addresses, sizes, strict=True):
        assert _bytes_at(address, size) == records.read(index).tobytes()
    assert addresses.dtype == sizes.dtype == np.int64 and held
    assert addresses_of(records)(ids[:0])[1].shape == (0,)


def test_seek_points_lie_where_those_of_each_do(tmp_path):
    (tmp_path / "train.seek").write_bytes(bytes(range(10)))
    points = SeekPoints(tmp_path / "train.seek", np.array([4, 0, 6]), tmp_path / "train.csv")
    held, addresses, sizes = points.addresses(np.array([2, 1, 0, 2]))
    assert sizes.tolist() == [6, 0, 4, 6] and held
    found = [_bytes_at(address, size) for address, size in zip(addresses, sizes, strict=True)]
    assert found == [bytes(range(4, 10)), b"", bytes(range(4)), bytes(range(4, 10))]
    points.close()
    assert points.addresses(np.array([2, 1]))[2].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["beton", "shards", "raw"])
def test_of_a_closed_file_there_are_none(kind, packed):
    records = open_records(packed, "train", prefers=kind)
    find = addresses_of(records)
    records.close()
    with pytest.raises(LoaderError, match="closed"):
        find(np.arange(3))


def test_files_of_a_folder_have_none_before_they_are_read(folder):
    assert addresses_of(folder) is None


class _Watched(BetonRecords):
    """People's own, which does more than to read."""

    def read(self, index):
        return super().read(index)


class _Named(BetonRecords):
    """People's own, which reads as it did."""

    def where(self, index):
        return f"sample {index}"


def test_who_reads_otherwise_is_asked_for_each_sample(packed, monkeypatch):
    path = packed / "train.beton"
    assert addresses_of(_Watched(path)) is None
    assert addresses_of(_Named(path)) is not None
    records = BetonRecords(path)
    monkeypatch.setattr(BetonRecords, "read", lambda records, index: MappedRecords.read(records, index), raising=False)
    assert addresses_of(records) is None


class _Numbered:
    """People's own, all in a dict, which knows no sample called -1."""

    channels, classes = None, ("one",)

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.samples = {number: rng.integers(0, 256, 3 * 32 * 32, dtype=np.uint8) for number in range(count)}
        self.labels, self.is_raw = np.zeros(count, np.int64), np.ones(count, bool)
        self.widths = self.heights = np.full(count, 32, np.int32)

    def __len__(self):
        return len(self.samples)

    def read(self, index):
        raise AssertionError("it says where samples lie")

    def addresses(self, ids):
        held = [self.samples[number] for number in ids.tolist()]
        return held, np.array([address_of(data) for data in held], np.int64), np.full(len(held), 3 * 32 * 32)

    def where(self, index):
        return f"sample {index}"

    def close(self):
        pass


def test_padding_is_no_sample_that_is_looked_up(open_one):
    if library.load("area") is None:
        pytest.skip(library.why_not("area"))
    records, view = _Numbered(5), View(CenterCrop(32, 32), 32)
    batches = open_one(records, "turbo", order=Sequential(4), view=view).epoch(0)
    images = torch.cat([batch.images[: batch.num_valid].clone() for batch in batches])
    assert [image.permute(1, 2, 0).reshape(-1).tolist() for image in images] == [
        data.tolist() for data in records.samples.values()
    ]


def test_of_shards_of_which_one_is_gone_the_others_samples_are_delivered(packed, open_one):
    records = open_records(packed, "train", prefers="shards")
    records.paths[0].unlink()
    expected = int((records.shards == 0).sum())
    batches = open_one(records, "turbo", on_bad="substitute", order=Shuffled(37)).epoch(0)
    assert sum(len(batch.substitutions) for batch in batches) == expected > 0
    assert len(records.paths) > 1


@pytest.mark.parametrize("kind", ADDRESSED)
def test_a_loader_reads_no_sample_by_itself_unless_somebody_else_does(kind, records_of, open_one, monkeypatch):
    if library.load("area") is None:
        pytest.skip(library.why_not("area"))
    records, asked = records_of(kind), []
    read = records.read

    def one(index):
        asked.append(index)
        return read(index)

    def loaded():
        return [batch.images.clone() for batch in open_one(records, "turbo", num_workers=2).epoch(0)]

    owner = MappedRecords if isinstance(records, MappedRecords) else type(records)
    with monkeypatch.context() as patch:
        patch.setattr(owner, "read", lambda records, index: one(index))
        images = loaded()
    assert not asked
    with monkeypatch.context() as patch:
        patch.setattr(records, "read", one)
        again = loaded()
    assert len(set(asked)) == len(asked) == sum(map(len, again)) > 0
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))
