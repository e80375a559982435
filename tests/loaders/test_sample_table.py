"""The table of samples comes back as it was written, also without us, or is refused with a sentence."""

import io
import os

import numpy as np
import pytest

from loaders.errors import FeedrateError
from loaders.sample_table import COLUMNS, InSource, SampleTable, table_name, write_table

NAMES = ["ant/a.jpg", "", "bee/ü 日本.jpg", os.fsdecode(b"cat/\xff\xfe.jpg"), "x"]
ALL = {name: np.arange(5, dtype=kind) + 1 for name, kind in COLUMNS.items() if name != "name_ends"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / table_name("train")
    with open(path, "wb") as file:
        write_table(file, ALL, NAMES)
    return path


def test_columns_and_names_come_back_as_they_were_written(path):
    table = SampleTable(path, 5)
    for name, values in ALL.items():
        column = table.column(name)
        assert column.dtype == COLUMNS[name] and column.tolist() == values.tolist()
    assert list(table.names()) == NAMES
    assert table.labels(6).tolist() == [1, 2, 3, 4, 5]
    assert [sides.tolist() for sides in table.sides()] == [[1, 2, 3, 4, 5]] * 2


def test_numbers_that_the_source_cannot_have_are_refused(path):
    table = SampleTable(path, 5)
    assert InSource(table, 6).numbers().tolist() == [1, 2, 3, 4, 5] and list(InSource(table, 6).names()) == NAMES
    with pytest.raises(FeedrateError, match=r"sample 4 has a number in its source that is not 0 … 4 \(1 such\)"):
        InSource(table, 5).numbers()


def test_numpy_reads_it_without_us(path):
    assert path.name == "train.samples.npz"
    with np.load(path) as table:
        assert set(table) == {*COLUMNS, "names"}
        ends = table["name_ends"]
        names = table["names"].tobytes()
        assert [names[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] == [
            os.fsencode(name) for name in NAMES
        ]


def test_columns_take_their_own_types(tmp_path):
    with open(tmp_path / "table", "wb") as file:
        write_table(file, {"labels": np.zeros(2, np.uint8), "widths": np.full(2, 5)}, ["a", "b"])
    assert SampleTable(tmp_path / "table", 2).column("labels").dtype == np.int64
    assert SampleTable(tmp_path / "table", 2).column("widths").dtype == np.int32


def test_the_bytes_depend_on_the_samples_alone(path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    again = io.BytesIO()
    write_table(again, ALL, iter(NAMES))
    assert again.getvalue() == path.read_bytes()


def test_a_column_that_was_not_written_is_named(path):
    with open(path, "wb") as file:
        write_table(file, {"labels": np.zeros(5)}, NAMES)
    with pytest.raises(FeedrateError, match="no column 'shard'"):
        SampleTable(path, 5).column("shard")
    assert list(SampleTable(path, 5).names()) == NAMES


def test_another_number_of_samples_or_another_type_is_refused(path):
    with pytest.raises(FeedrateError, match=r"'labels' is int64 \[5\] instead of int64 \[6\]"):
        SampleTable(path, 6).column("labels")
    np.savez(path, labels=np.zeros(5, np.float32), widths=np.zeros((5, 1), np.int32))
    with pytest.raises(FeedrateError, match="float32"):
        SampleTable(path, 5).column("labels")
    with pytest.raises(FeedrateError, match=r"int32 \[5, 1\]"):
        SampleTable(path, 5).column("widths")


def test_labels_and_sides_that_cannot_be_are_refused(path):
    with pytest.raises(FeedrateError, match=r"sample 4 has a label that is not 0 … 4 \(1 such\)"):
        SampleTable(path, 5).labels(5)
    with open(path, "wb") as file:
        write_table(file, {**ALL, "heights": np.array([1, 2, 0, -1, 5])}, NAMES)
    with pytest.raises(FeedrateError, match=r"sample 2 has no pixels \(2 such\)"):
        SampleTable(path, 5).sides()


@pytest.mark.parametrize("ends", [[9, 9, 20, 29, 31], [9, 8, 20, 29, 30], [-1, 9, 20, 29, 30]])
def test_names_that_do_not_fit_their_ends_are_refused(path, ends):
    with np.load(path) as stored:
        content = dict(stored)
    assert content["name_ends"][-1] == len(content["names"])
    content["name_ends"] = np.array(ends)
    np.savez(path, **content)
    with pytest.raises(FeedrateError, match="names are damaged"):
        SampleTable(path, 5).names()


def test_what_is_no_table_is_refused(path):
    whole = path.read_bytes()
    npy, object_array = io.BytesIO(), io.BytesIO()
    np.save(npy, np.zeros(5))
    np.savez(object_array, labels=np.array([{}] * 5), allow_pickle=True)
    for content in (b"", b"PK", bytes(100), npy.getvalue(), object_array.getvalue(), *map(whole.__getitem__, _cuts())):
        path.write_bytes(content)
        with pytest.raises(FeedrateError, match="no column") as caught:
            SampleTable(path, 5).column("labels")
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FeedrateError, match="no column"):
        SampleTable(path, 5).column("labels")


def _cuts():
    return [slice(length) for length in (10, 100, 300, 1000)]


def test_damage_anywhere_is_noticed_or_harmless(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        table = SampleTable(path, 5)
        try:
            assert all(table.column(name).tolist() == values.tolist() for name, values in ALL.items())
            assert list(table.names()) == NAMES
        except FeedrateError as error:
            assert "\n" not in str(error)
            num_refused += 1
    assert num_refused > 500
