"""Shards are used only if the table tells where their samples are; anything else is one sentence, fast."""

import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from packed_by_hand import agree, change_split, change_table, samples_of, write_packed

from loaders.errors import FeedrateError
from loaders.packed_folder import open_packed
from loaders.sample_table import SampleTable, write_table
from loaders.shard_records import ShardRecords


@pytest.fixture
def shards(image_folder, tmp_path):
    """37 samples in four shards of ten at most."""
    return write_packed(tmp_path / "packed", {"train": samples_of(image_folder, "train")}, ("shards",))


def refuse(folder):
    """The sentence with which it is refused, which must take less than ten seconds of work."""
    started = time.thread_time()
    with pytest.raises(FeedrateError) as caught:
        open_packed(folder, "train", "shards")
    assert time.thread_time() - started < 10
    assert "\n" not in str(caught.value) and "pack the data set again" in str(caught.value)
    return str(caught.value)


def column(folder, name):
    with np.load(folder / "train.samples.npz") as table:
        return table[name]


def test_what_the_table_says_is_what_tar_says(shards):
    records = open_packed(shards, "train")
    assert isinstance(records, ShardRecords) and [path.name for path in records.paths] == [
        f"train-{n:06d}.tar" for n in range(4)
    ]
    index = 0
    for number, path in enumerate(records.paths):
        with tarfile.open(path) as tar:
            images = [member for member in tar if member.name.endswith(".jpg")]
            for member in images:
                assert member.name == f"{index:09d}.jpg" and records.shards[index] == number
                assert (member.offset_data, member.size) == (records.positions[index], records.sizes[index])
                assert bytes(records.read(index)) == tar.extractfile(member).read()
                index += 1
    assert index == len(records) == 37


def test_a_place_is_told_as_shard_member_and_byte(shards):
    records = open_packed(shards, "train")
    assert records.where(10) == f"{shards / 'train-000001.tar'}, 000000010.jpg at byte 512"


def test_a_shard_is_mapped_when_first_read_from(shards):
    records = open_packed(shards, "train")
    assert str(shards) not in Path("/proc/self/maps").read_text()
    records.read(35)
    assert Path("/proc/self/maps").read_text().count(str(shards)) == 1


@pytest.mark.parametrize(
    ("name", "index", "value", "words"),
    [
        ("shard", 3, -1, "sample 3 lies in a shard that does not exist"),
        ("shard", 36, 4, "sample 36 lies in a shard that does not exist"),
        ("shard", 0, 1, "sample 0 is not in the order"),
        ("shard", 20, 1, "sample 30 is not in the order"),
        ("shard", 5, 1, "sample 6 is not in the order"),
        ("shard_bytes", 4, 0, "sample 4 has no bytes"),
        ("shard_bytes", 4, -512, "sample 4 has no bytes"),
        ("shard_bytes", 5, 1 << 20, "sample 5 lies outside"),
        ("shard_bytes", 5, (1 << 63) - 1, "sample 5 lies outside"),
        ("shard_position", 0, 0, "sample 0 does not begin at a block"),
        ("shard_position", 6, -512, "sample 6 does not begin at a block"),
        ("shard_position", 6, -(1 << 63), "sample 6 does not begin at a block"),
        ("shard_position", 6, 513, "sample 6 does not begin at a block"),
        ("shard_position", 7, 512, "sample 7 begins before"),
        ("shard_position", 7, 1 << 40, "sample 7 lies outside"),
        ("shard_position", 7, (1 << 63) - 512, "sample 7 lies outside"),
        ("labels", 8, 3, "sample 8 has a label that is not 0 … 2"),
        ("labels", 8, -1, "sample 8 has a label that is not 0 … 2"),
        ("widths", 9, 0, "sample 9 has no pixels"),
        ("heights", 9, -5, "sample 9 has no pixels"),
    ],
)
def test_each_broken_rule_has_its_own_sentence(shards, name, index, value, words):
    values = column(shards, name)
    if name == "shard" and index == 20:
        values[20:30] = value  # a whole shard is left out
    values[index] = value
    change_table(shards, "train", **{name: values})
    sentence = refuse(shards)
    assert words in sentence and "train.samples.npz" in sentence


@pytest.mark.parametrize("name", ["labels", "widths", "heights", "shard", "shard_position", "shard_bytes"])
def test_a_column_that_is_missing_is_named(shards, name):
    change_table(shards, "train", **{name: None})
    assert f"no column '{name}'" in refuse(shards)


def test_shards_that_changed_places_are_refused(shards):
    for number in (0, 1):
        (shards / f"train-{number:06d}.tar").rename(shards / f"old-{number}")
    for number in (0, 1):
        (shards / f"old-{1 - number}").rename(shards / f"train-{number:06d}.tar")
    assert "train-000000.tar has" in refuse(shards)  # of another size, says the manifest
    agree(shards)
    assert "000000000.jpg" in refuse(shards) or "lies outside" in refuse(shards)


def test_a_shard_of_the_same_size_with_other_samples_is_refused(shards):
    path = shards / "train-000002.tar"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"000000029.jpg", b"000000129.jpg"))
    assert "train-000002.tar has no 000000029.jpg" in refuse(shards)
    path.write_bytes(bytes(len(whole)))
    assert "train-000002.tar has no 000000020.jpg" in refuse(shards)


def test_fewer_and_more_shards_than_the_table_knows_are_refused(shards):
    places = [
        {"name": path.name, "num_bytes": path.stat().st_size, "sha256": ""} for path in sorted(shards.glob("*.tar"))
    ]
    change_split(shards, "train", formats={"shards": places[:3]})
    assert "sample 30 lies in a shard that does not exist" in refuse(shards)
    change_split(shards, "train", formats={"shards": [*places, places[3]]})
    assert "4 of 5 shards" in refuse(shards)


def test_random_damage_to_the_table_never_ends_in_anything_but_a_sentence_or_sound_records(shards):
    rng = np.random.default_rng(0)
    good = {name: column(shards, name) for name in ("shard", "shard_position", "shard_bytes")}
    num_refused = 0
    for _ in range(200):
        damaged = {name: values.copy() for name, values in good.items()}
        for _ in range(rng.integers(1, 3)):
            values = damaged[rng.choice(list(damaged))]
            values.view(np.uint8)[rng.integers(values.nbytes)] ^= 1 << rng.integers(8)
        change_table(shards, "train", **damaged)
        try:
            records = open_packed(shards, "train", "shards")
            assert [len(records.read(index)) for index in range(37)] == records.sizes.tolist()
        except FeedrateError:
            num_refused += 1
    assert num_refused > 100


def test_a_million_samples_in_many_shards_are_checked_whole(tmp_path):
    """Holes with headers where they are looked at."""
    num, per_shard, size = 1_281_167, 10_000, 100_000
    step = 3 * 512 + -(-size // 512) * 512
    index = np.arange(num)
    with open(tmp_path / "train.samples.npz", "wb") as file:
        columns = {"labels": index % 1000, "widths": np.full(num, 500), "heights": np.full(num, 375)}
        columns |= {"shard": index // per_shard, "shard_position": 512 + index % per_shard * step}
        write_table(file, {**columns, "shard_bytes": np.full(num, size)}, ("" for _ in range(num)))
    paths = []
    for first in range(0, num, per_shard):
        last = min(first + per_shard, num) - 1
        paths.append(tmp_path / f"{first}.tar")
        with open(paths[-1], "wb") as file:
            for number in (first, last):
                member = tarfile.TarInfo(f"{number:09d}.jpg")
                member.size = size
                file.seek((number - first) * step)
                file.write(member.tobuf(tarfile.USTAR_FORMAT))
            file.truncate((last - first + 1) * step + 1024)
    records = ShardRecords(paths, SampleTable(tmp_path / "train.samples.npz", num), tuple(map(str, range(1000))))
    assert len(records) == num and len(records.read(num - 1)) == size
