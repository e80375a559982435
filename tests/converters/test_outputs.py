"""Where each format puts its samples, and that it can be taken up anywhere."""

import tarfile

import numpy as np
import pytest

from converters.encode import Encoded
from converters.formats import shards
from converters.formats.beton import PAGE_BYTES, BetonOutput
from converters.formats.outputs import ROW, Payload, write_blobs
from converters.formats.raw_array import RawOutput
from converters.formats.shards import ShardOutput
from loaders import beton_layout as layout
from loaders.beton_records import BetonRecords
from loaders.errors import FeedrateError

PAGE = 1 << 13


def rows_of(sizes):
    """Rows of JPEGs of these sizes, 5×5 px."""
    rows = np.zeros(len(sizes), ROW)
    rows["jpeg_bytes"], rows["width"], rows["height"] = sizes, 5, 5
    rows["label"] = np.arange(len(sizes)) % 3
    return rows


def put(output, rows, start, stop):
    """Place and write samples [start, stop); the bytes of sample n are all n modulo 251, plus 1."""
    part = rows[start:stop]
    place = output.place(part, start)
    blobs = [bytes([number % 251 + 1]) * int(rows["jpeg_bytes"][number]) for number in range(start, stop)]
    pixels = np.zeros((5, 5, 3), np.uint8)
    place.write([Payload(Encoded(5, 5, blob, False, pixels + blob[0], None), False) for blob in blobs])


def write_beton(folder, sizes, page_bytes=PAGE):
    rows = rows_of(sizes)
    output = BetonOutput(folder, "train", len(rows), page_bytes)
    output.restore(rows[:0])
    put(output, rows, 0, len(rows))
    output.finish(rows)
    path = folder / "train.beton"
    return BetonRecords(path), np.fromfile(path, layout.HEADER, 1)[0]


def check_beton(records, header, sizes):
    page = int(header["page_size"])
    positions, ends = records.positions, records.positions + records.sizes
    assert page & (page - 1) == 0
    assert records.sizes.tolist() == list(sizes)
    assert (positions // page == (ends - 1) // page).all(), "a sample crosses a page's border"
    assert (positions[1:] >= ends[:-1]).all(), "samples are not in order"
    assert header["alloc_table_ptr"] % page == 0 and header["alloc_table_ptr"] >= ends[-1]
    for number in range(len(sizes)):
        assert set(bytes(records.read(number))) == {number % 251 + 1}


@pytest.mark.parametrize("sizes", [[PAGE], [PAGE, PAGE], [PAGE - 1, 1, 1], [PAGE - 1, 2], [1] * 9, [5000, 5000, 3000]])
def test_no_sample_crosses_a_border_whatever_fits_exactly(tmp_path, sizes):
    records, header = write_beton(tmp_path, sizes)
    assert header["page_size"] == PAGE
    check_beton(records, header, sizes)


@pytest.mark.parametrize("largest", [PAGE + 1, 2 * PAGE, 2 * PAGE + 1, 9 * PAGE])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_the_page_grows_to_the_next_power_of_two_that_holds_the_largest(tmp_path, largest, place):
    sizes = np.random.default_rng(largest).integers(1, PAGE, 20).tolist()
    sizes[place] = largest
    records, header = write_beton(tmp_path, sizes)
    assert header["page_size"] // 2 < largest <= header["page_size"]
    check_beton(records, header, sizes)


def test_random_sizes_on_pages_of_the_default_size_leave_holes_and_no_waste(tmp_path):
    sizes = np.random.default_rng(1).integers(1, 3_000_000, 12).tolist()
    records, header = write_beton(tmp_path, sizes, PAGE_BYTES)
    assert header["page_size"] == 8 << 20
    check_beton(records, header, sizes)
    blocks = (tmp_path / "train.beton").stat().st_blocks * 512
    assert blocks < sum(sizes) + (1 << 20), "gaps between samples should be holes"


def test_a_sample_beyond_the_largest_page_is_refused(tmp_path):
    output = BetonOutput(tmp_path, "train", 1)
    with pytest.raises(FeedrateError, match="--max-side"):
        output.place(rows_of([(1 << 31) + 1]), 0)


def test_until_it_is_finished_no_reader_accepts_the_file(tmp_path):
    rows = rows_of([3, 3])
    output = BetonOutput(tmp_path, "train", 2, PAGE)
    output.restore(rows[:0])
    for number in range(2):
        put(output, rows, number, number + 1)
        with pytest.raises(FeedrateError):
            BetonRecords(tmp_path / "train.beton")
    output.finish(rows)
    BetonRecords(tmp_path / "train.beton")


def beton(folder):
    return BetonOutput(folder, "train", 40, PAGE)


def sharded(folder):
    return ShardOutput(folder, "train", shard_bytes=30_000)


def raw(folder):
    return RawOutput(folder, "train")


@pytest.mark.parametrize("make", [beton, sharded, raw])
@pytest.mark.parametrize("stopped_at", [0, 1, 17, 30, 40])
def test_each_output_is_taken_up_after_any_sample_to_the_same_files(tmp_path, make, stopped_at):
    sizes = [*np.random.default_rng(3).integers(1, 2 * PAGE, 40).tolist()]
    straight, rows = tmp_path / "straight", rows_of(sizes)
    straight.mkdir()
    output = make(straight)
    output.restore(rows[:0])
    put(output, rows, 0, 40)
    paths = output.finish(rows)

    resumed, again = tmp_path / "resumed", rows_of(sizes)
    resumed.mkdir()
    output = make(resumed)
    output.restore(again[:0])
    put(output, again, 0, stopped_at)
    put(output, again.copy(), stopped_at, min(40, stopped_at + 9))  # written, and then forgotten
    output = make(resumed)
    output.restore(again[:stopped_at])
    put(output, again, stopped_at, 40)
    assert [path.name for path in output.finish(again)] == [path.name for path in paths]
    assert np.array_equal(rows, again)
    assert sorted(path.name for path in resumed.iterdir()) == sorted(path.name for path in straight.iterdir())
    for path in paths:
        assert path.read_bytes() == (resumed / path.name).read_bytes()
        held = path.read_bytes()
    output.finish(again)
    assert (resumed / paths[-1].name).read_bytes() == held, "finishing twice changed something"


def test_shards_end_before_they_would_exceed_their_size_but_hold_one_sample(tmp_path):
    sizes = [9000, 9000, 9000, 100, 60_000, 200]
    rows = rows_of(sizes)
    output = sharded(tmp_path)
    output.restore(rows[:0])
    put(output, rows, 0, 6)
    paths = output.finish(rows)
    assert rows["shard"].tolist() == [0, 1, 2, 2, 3, 4]  # whole records of 10,240 bytes count
    found = []
    for path in paths[::2]:
        assert path.stat().st_size % 10_240 == 0
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        found += [(member.name, member.size) for member in members if member.name.endswith(".jpg")]
        assert all(member.mtime == member.uid == 0 and not member.uname for member in members)
    assert found == [(f"{number:09d}.jpg", size) for number, size in enumerate(sizes)]


def test_a_label_of_many_digits_fits_its_member(tmp_path):
    rows = rows_of([10])
    rows["label"] = 123_456_789
    output = sharded(tmp_path)
    output.restore(rows[:0])
    put(output, rows, 0, 1)
    output.finish(rows)
    with tarfile.open(tmp_path / shards.shard_name("train", 0)) as tar:
        assert tar.extractfile("000000000.cls").read() == b"123456789"


def test_images_of_one_size_become_an_array_of_four_dimensions(tmp_path):
    rows = rows_of([1, 1, 1])
    output = raw(tmp_path)
    output.restore(rows[:0])
    put(output, rows, 0, 3)
    output.finish(rows)
    array = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert array.shape == (3, 5, 5, 3) and array[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_blobs_land_where_they_should_whatever_lies_between(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    write_blobs(path, np.array([4, 7, 20, 21, 2]), [b"abc", b"def", b"x", b"y", np.frombuffer(b"zz", np.uint8)])
    assert path.read_bytes() == b"\0\0zzabcdef" + bytes(10) + b"xy"
