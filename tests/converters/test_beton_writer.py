"""Where the writer puts samples."""

import numpy as np
import pytest

from converters.beton import PAGE_BYTES, BetonWriter
from loaders import beton_layout as layout
from loaders.beton_records import open_split
from loaders.errors import FeedrateError

PAGE = 1 << 13


def write(path, sizes, page_bytes=PAGE):
    with open(path, "w+b") as file:
        writer = BetonWriter(file, len(sizes), page_bytes)
        for number, size in enumerate(sizes):
            writer.add(bytes([number % 251 + 1]) * size, False, 5, 5, number % 3)
        writer.finish()
    return open_split(path, "train", None), np.fromfile(path, layout.HEADER, 1)[0]


def check(records, header, sizes):
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
    records, header = write(tmp_path / "a.beton", sizes)
    assert header["page_size"] == PAGE
    check(records, header, sizes)


@pytest.mark.parametrize("largest", [PAGE + 1, 2 * PAGE, 2 * PAGE + 1, 9 * PAGE])
@pytest.mark.parametrize("place", [0, 7, 19])
def test_the_page_grows_to_the_next_power_of_two_that_holds_the_largest(tmp_path, largest, place):
    sizes = np.random.default_rng(largest).integers(1, PAGE, 20).tolist()
    sizes[place] = largest
    records, header = write(tmp_path / "a.beton", sizes)
    assert header["page_size"] // 2 < largest <= header["page_size"]
    check(records, header, sizes)


def test_random_sizes_on_pages_of_the_default_size(tmp_path):
    sizes = np.random.default_rng(1).integers(1, 3_000_000, 12).tolist()
    records, header = write(tmp_path / "a.beton", sizes, PAGE_BYTES)
    assert header["page_size"] == 8 << 20
    check(records, header, sizes)
    blocks = (tmp_path / "a.beton").stat().st_blocks * 512
    assert blocks < sum(sizes) + (1 << 20), "gaps between samples should be holes"


def test_a_sample_beyond_the_largest_page_is_refused(tmp_path):
    class Huge(bytes):
        def __len__(self):
            return (1 << 31) + 1

    with open(tmp_path / "a.beton", "w+b") as file, pytest.raises(FeedrateError, match="--max-side"):
        BetonWriter(file, 1).add(Huge(), False, 5, 5, 0)


def test_until_it_is_finished_no_reader_accepts_the_file(tmp_path):
    path = tmp_path / "a.beton"
    with open(path, "w+b") as file:
        writer = BetonWriter(file, 2, PAGE)
        for _ in range(2):
            writer.add(b"abc", False, 5, 5, 0)
            file.flush()
            with pytest.raises(FeedrateError):
                open_split(path, "train", None)
        writer.finish()
    open_split(path, "train", None)
