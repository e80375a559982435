"""A .npy file of pixels is used only if it is what the table says; anything else is one sentence, fast."""

import time
from dataclasses import replace

import numpy as np
import pytest
from packed_by_hand import agree, change_split, change_table, samples_of, write_packed

from loaders.errors import FeedrateError
from loaders.packed_folder import open_packed
from loaders.raw_records import RawRecords
from loaders.sample_table import SampleTable, write_table


@pytest.fixture
def raw(image_folder, tmp_path):
    """37 samples of many sizes: a flat array."""
    return write_packed(tmp_path / "packed", {"train": samples_of(image_folder, "train")}, ("raw",))


@pytest.fixture
def square(image_folder, tmp_path):
    """Twelve of 16 × 16 pixels: one array."""
    samples = [replace(sample, pixels=sample.pixels[:16, :16]) for sample in samples_of(image_folder, "train")[:12]]
    return write_packed(tmp_path / "square", {"train": samples}, ("raw",))


def refuse(folder):
    """The sentence with which it is refused, which must take less than ten seconds of work."""
    started = time.thread_time()
    with pytest.raises(FeedrateError) as caught:
        open_packed(folder, "train", "raw")
    assert time.thread_time() - started < 10
    assert "\n" not in str(caught.value) and "pack the data set again" in str(caught.value)
    return str(caught.value)


def column(folder, name):
    with np.load(folder / "train.samples.npz") as table:
        return table[name]


def test_pixels_are_those_that_numpy_reads(raw, square):
    flat, records = np.load(raw / "train.npy", mmap_mode="r"), open_packed(raw, "train")
    assert isinstance(records, RawRecords) and flat.ndim == 1
    starts = column(raw, "raw_position")
    for index in range(37):
        assert np.array_equal(records.read(index), flat[starts[index] :][: records.sizes[index]])
    whole, records = np.load(square / "train.npy", mmap_mode="r"), open_packed(square, "train")
    assert whole.shape == (12, 16, 16, 3)
    for index in range(12):
        assert np.array_equal(records.read(index), whole[index].ravel())


def test_a_place_is_told_as_file_sample_and_byte(square):
    assert open_packed(square, "train").where(2) == f"{square / 'train.npy'}, sample 2 at byte {128 + 2 * 768}"


@pytest.mark.parametrize(
    ("name", "index", "value", "words"),
    [
        ("raw_position", 0, 1, "sample 0 does not begin where"),
        ("raw_position", 5, -3, "sample 5 does not begin where"),
        ("raw_position", 6, 1 << 62, "sample 6 does not begin where"),
        ("widths", 7, 1 << 20, "sample 7 has more pixels"),
        ("widths", 8, 1, "sample 9 does not begin where"),
        ("heights", 36, 1, "tells of"),
        ("heights", 9, 0, "sample 9 has no pixels"),
        ("labels", 10, 77, "sample 10 has a label"),
    ],
)
def test_each_broken_rule_has_its_own_sentence(raw, name, index, value, words):
    values = column(raw, name)
    values[index] = value
    change_table(raw, "train", **{name: values})
    sentence = refuse(raw)
    assert words in sentence and "train.samples.npz" in sentence


def test_sides_whose_product_exceeds_any_number_are_refused(raw):
    widths, heights = column(raw, "widths"), column(raw, "heights")
    widths[3] = heights[3] = np.iinfo(np.int32).max
    change_table(raw, "train", widths=widths, heights=heights)
    assert "sample 3 has more pixels" in refuse(raw)


def test_a_sample_of_another_size_than_the_arrays_is_refused(square):
    widths, heights = column(square, "widths"), column(square, "heights")
    widths[4], heights[4] = 8, 32  # the same number of pixels
    change_table(square, "train", widths=widths, heights=heights)
    assert "sample 4 is not 16×16 px" in refuse(square)


@pytest.mark.parametrize("name", ["labels", "widths", "heights", "raw_position"])
def test_a_column_that_is_missing_is_named(raw, name):
    change_table(raw, "train", **{name: None})
    assert f"no column '{name}'" in refuse(raw)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(100, np.int8), "int8 [100]"),
        (np.zeros((5, 7), np.uint8), "uint8 [5, 7]"),
        (np.zeros((12, 16, 16, 4), np.uint8), "[12, 16, 16, 4]"),
        (np.asfortranarray(np.zeros((12, 16, 16, 3), np.uint8)), "[12, 16, 16, 3]"),
        (np.zeros((11, 16, 16, 3), np.uint8), "holds 11 samples"),
        (np.zeros((12, 16, 15, 3), np.uint8), "sample 0 is not 15×16 px"),
        (np.zeros(12 * 768 - 1, np.uint8), "tells of"),
        (np.zeros(0, np.uint8), "sample 0 has more pixels"),
    ],
)
def test_another_array_is_refused(square, array, words):
    np.save(square / "train.npy", array)
    agree(square)
    assert words in refuse(square)


@pytest.mark.parametrize("length", [0, 3, 6, 8, 9, 50, 127, 128, 129, 1000, 128 + 12 * 768 - 1])
def test_a_file_cut_short_anywhere_is_refused_even_by_a_manifest_that_agrees(square, length):
    path = square / "train.npy"
    path.write_bytes(path.read_bytes()[:length])
    assert "bytes" in refuse(square)
    agree(square)
    assert "train.npy" in refuse(square)


def test_what_is_no_npy_file_is_refused(square):
    rng = np.random.default_rng(0)
    for start in (b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"\x93NUMPY\x01\x00\x76\x00{"):
        (square / "train.npy").write_bytes(start + rng.bytes(3000))
        agree(square)
        assert "is not a .npy file" in refuse(square)


def test_a_header_of_numpys_second_version_is_read(square):
    pixels = np.load(square / "train.npy")
    with open(square / "train.npy", "wb") as file:
        np.lib.format.write_array(file, pixels, version=(2, 0))
    agree(square)
    assert np.array_equal(open_packed(square, "train").read(3), pixels[3].ravel())


def test_two_splits_files_that_changed_places_are_refused(image_folder, tmp_path):
    samples = samples_of(image_folder, "train")
    folder = write_packed(tmp_path, {"train": samples[:20], "val": samples[10:20]}, ("raw",))
    (folder / "train.npy").rename(folder / "other")
    (folder / "val.npy").rename(folder / "train.npy")
    (folder / "other").rename(folder / "val.npy")
    assert "train.npy has" in refuse(folder)
    agree(folder)
    assert "has more pixels" in refuse(folder) or "tells of" in refuse(folder)
    change_split(folder, "train", samples_per_class=[0, 0, 0])
    refuse(folder)


def test_a_million_samples_are_checked_whole(tmp_path):
    """The pixels are a hole in the file."""
    num = 1_281_167
    with open(tmp_path / "train.samples.npz", "wb") as file:
        columns = {"labels": np.arange(num) % 1000, "widths": np.full(num, 64), "heights": np.full(num, 64)}
        write_table(file, {**columns, "raw_position": 12288 * np.arange(num)}, ("" for _ in range(num)))
    with open(tmp_path / "train.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (num, 64, 64, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + num * 12288)
    table = SampleTable(tmp_path / "train.samples.npz", num)
    records = RawRecords(tmp_path / "train.npy", table, tuple(map(str, range(1000))))
    assert len(records) == num and len(records.read(num - 1)) == 12288
