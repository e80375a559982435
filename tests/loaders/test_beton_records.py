"""A packed file is used only if all of it is sound; anything else is one sentence, fast."""

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from packed_by_hand import beton_bytes

from loaders import beton_layout as layout
from loaders.beton_records import BetonRecords
from loaders.errors import FeedrateError, LoaderError

SAMPLES = [(b"\xff\xd8jpeg", False, 30, 20, 0), (bytes(range(12)), True, 2, 2, 1), (b"\xff\xd8j", False, 9, 8, 2)]


def write(path, samples=SAMPLES, page_bytes=1 << 12):
    path.write_bytes(beton_bytes(samples, page_bytes))
    return path


@pytest.fixture
def packed(tmp_path):
    return write(tmp_path / "train.beton")


def refuse(path):
    """The sentence with which `path` is refused, which must take less than ten seconds of work."""
    started = time.thread_time()
    with pytest.raises(FeedrateError) as caught:
        BetonRecords(path)
    assert time.thread_time() - started < 10
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


def edit(path, position, data):
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)


def header_of(path):
    return np.fromfile(path, layout.HEADER, 1)[0]


def metadata_position(sample, name):
    offset = {"mode": 0, "width": 1, "height": 3, "data_ptr": 5, "label": 16}[name]
    return layout.metadata_start(2) + 24 * sample + offset


def test_samples_come_back_as_they_were_written(packed):
    records = BetonRecords(packed)
    assert [bytes(records.read(i)) for i in range(3)] == [data for data, *_ in SAMPLES]
    assert records.labels.tolist() == [0, 1, 2] and records.labels.dtype == np.int64
    assert records.widths.tolist() == [30, 2, 9] and records.widths.dtype == np.int32
    assert records.heights.tolist() == [20, 2, 8] and records.heights.dtype == np.int32
    assert records.is_raw.tolist() == [False, True, False]
    assert records.classes == ("0", "1", "2") and len(records) == 3 and records.channels is None


def test_reading_copies_nothing_and_cannot_write(packed):
    records = BetonRecords(packed)
    first, again = records.read(1), records.read(1)
    assert np.shares_memory(first, again) and not first.flags.writeable


def test_records_can_be_pickled_and_read_by_threads(packed):
    records = pickle.loads(pickle.dumps(BetonRecords(packed)))
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda n: bytes(records.read(n % 3)), range(300)))
    assert read == [SAMPLES[n % 3][0] for n in range(300)]


def test_closing_twice_is_fine_and_reading_then_is_an_error_that_names_the_sample(packed):
    records = BetonRecords(packed)
    kept = records.read(0)
    records.close()
    records.close()
    assert bytes(kept) == SAMPLES[0][0]
    with pytest.raises(LoaderError, match="sample 1"):
        records.read(1)
    with pytest.raises(LoaderError):
        pickle.loads(pickle.dumps(records)).read(1)


def test_a_file_replaced_behind_a_pickle_is_noticed(packed):
    sent = pickle.dumps(BetonRecords(packed))
    os.truncate(packed, packed.stat().st_size - 24)
    with pytest.raises(LoaderError, match="changed"):
        pickle.loads(sent).read(0)


def test_a_file_cut_short_anywhere_is_refused(packed):
    """Every region: header, descriptors, metadata, padding, data, and every length of the table."""
    whole = packed.read_bytes()
    table = int(header_of(packed)["alloc_table_ptr"])
    lengths = {*range(26), 500, 1065, 1066, 2105, 2106, *range(2107, 2200, 7), 4095, 4096, 4100, 4115, table - 1, table}
    for length in sorted(lengths | set(range(table, len(whole)))):
        packed.write_bytes(whole[:length])
        refuse(packed)
    packed.write_bytes(whole)
    BetonRecords(packed)


def test_an_interrupted_ffcv_conversion_is_refused_by_that_name(packed):
    edit(packed, 16, bytes(8))  # FFCV writes the table's position last
    assert "interrupted" in refuse(packed)


def test_noise_and_emptiness_are_refused(tmp_path):
    path = tmp_path / "noise.beton"
    for seed, size in enumerate((0, 1, 23, 24, 100, 5000, 3_000_000)):
        path.write_bytes(np.random.default_rng(seed).bytes(size))
        refuse(path)
        path.write_bytes(b"\x02\x00" + np.random.default_rng(seed).bytes(size))
        refuse(path)
        path.write_bytes(bytes(size))
        refuse(path)


def test_random_damage_to_the_tables_never_ends_in_anything_but_a_sentence_or_sound_records(packed):
    whole = bytearray(packed.read_bytes())
    rng = np.random.default_rng(0)
    table = int(header_of(packed)["alloc_table_ptr"])
    places = [*range(24), *range(24, 41), *range(1065, 1082), *range(2106, 2178), *range(table, len(whole))]
    num_refused = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for place in rng.choice(places, rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        packed.write_bytes(damaged)
        try:
            records = BetonRecords(packed)
            for index in range(len(records)):
                assert len(records.read(index)) == records.sizes[index]
        except FeedrateError:
            num_refused += 1
    assert num_refused > 500


@pytest.mark.parametrize(
    ("position", "data", "words"),
    [
        (0, b"\x03", "version 2"),
        (2, b"\x00", "0 fields"),
        (2, b"\xff\xff", "65535 fields"),
        (8, bytes(8), "no samples"),
        (8, b"\xff" * 7, "samples"),
        (24, b"\xff", "type 255"),
        (24, b"\x01", "image"),
        (24 + 1041, b"\x00", "integer label"),
        (metadata_position(1, "mode"), b"\x07", "sample 1 is neither"),
        (metadata_position(0, "width"), bytes(2), "sample 0 has no pixels"),
        (metadata_position(2, "height"), bytes(2), "sample 2 has no pixels"),
        (metadata_position(1, "width"), b"\x03", "sample 1 has not the bytes"),
        (metadata_position(1, "data_ptr"), b"\x01", "sample 1 has no entry"),
        (metadata_position(1, "label"), b"\xff" * 8, "sample 1 has a negative label"),
    ],
)
def test_each_broken_rule_has_its_own_sentence(packed, position, data, words):
    edit(packed, position, data)
    assert words in refuse(packed)


def write_fields(path, names):
    """One sample: field i of these, an image where its name begins with im, is i or an image i + 1 pixels wide."""
    types = [layout.TYPE_IMAGE if name.startswith("im") else layout.TYPE_INT for name in names]
    record, fields = np.zeros(1, layout.metadata_dtype(types)), np.zeros(len(names), layout.FIELD)
    position, end = 4 << 12, (4 + types.count(layout.TYPE_IMAGE)) << 12
    table = np.zeros(types.count(layout.TYPE_IMAGE), layout.ALLOCATION)
    for i, (name, type_id) in enumerate(zip(names, types, strict=True)):
        fields[i]["type_id"] = type_id
        fields[i]["name"][: len(name)] = list(name.encode())
        record[f"f{i}"] = i if type_id == layout.TYPE_INT else (layout.MODE_RAW, i + 1, 1, position)
        if type_id == layout.TYPE_IMAGE:
            table[(position >> 12) - 4] = 0, position, 3 * (i + 1)
            position += 4096
    header = np.array([(layout.VERSION, len(names), 4096, 1, end)], layout.HEADER)
    tables = header.tobytes() + fields.tobytes() + record.tobytes()
    path.write_bytes(tables.ljust(end, b"\0") + table.tobytes())
    return path


@pytest.mark.parametrize(
    ("names", "image", "label"),
    [
        (("im", "target"), 0, 1),  # one of each may be called anything
        (("idx", "image", "label"), 1, 2),
        (("label", "im_small", "image"), 2, 0),
    ],
)
def test_of_several_fields_those_called_image_and_label_are_taken(tmp_path, names, image, label):
    records = BetonRecords(write_fields(tmp_path / "train.beton", names))
    assert (records.labels[0], records.widths[0]) == (label, image + 1)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("idx", "lab", "im"), "several integers, 'idx', 'lab', and none alone is called 'label'"),
        (("im_left", "im_right", "label"), "several images, 'im_left', 'im_right', and none alone is called 'image'"),
    ],
)
def test_of_several_fields_none_is_guessed(tmp_path, names, words):
    sentence = refuse(write_fields(tmp_path / "train.beton", names))
    assert words in sentence and "docs/extending.md" in sentence


@pytest.mark.parametrize("pointer", [8, 1 << 40, (1 << 64) - 3])
def test_a_sample_outside_the_data_is_refused(packed, pointer):
    table = int(header_of(packed)["alloc_table_ptr"])
    edit(packed, metadata_position(1, "data_ptr"), np.uint64(pointer).tobytes())
    edit(packed, table + 24 + 8, np.uint64(pointer).tobytes())
    assert "sample 1 lies outside" in refuse(packed)


@pytest.mark.parametrize(("size", "words"), [(0, "no bytes"), ((1 << 64) - 1, "outside"), (1 << 13, "outside")])
def test_a_size_that_cannot_be_is_refused(packed, size, words):
    edit(packed, int(header_of(packed)["alloc_table_ptr"]) + 16, np.uint64(size).tobytes())
    assert words in refuse(packed)


def test_the_allocation_table_may_be_in_any_order(packed):
    table = int(header_of(packed)["alloc_table_ptr"])
    entries = np.fromfile(packed, layout.ALLOCATION, offset=table)
    edit(packed, table, entries[[2, 0, 1]].tobytes())
    records = BetonRecords(packed)
    assert [bytes(records.read(i)) for i in range(3)] == [data for data, *_ in SAMPLES]


def test_a_million_samples_are_checked_whole(tmp_path):
    """1.28 million, as ImageNet has; the data itself is a hole in the file."""
    num = 1_281_167
    path = tmp_path / "big.beton"
    order = np.random.default_rng(0).permutation(num)
    start = layout.metadata_start(2) + 24 * num
    metadata = np.zeros(num, layout.metadata_dtype([layout.TYPE_IMAGE, layout.TYPE_INT]))
    metadata["f0"]["width"], metadata["f0"]["height"], metadata["f1"] = 500, 375, order % 1000
    metadata["f0"]["data_ptr"] = start + 8 * order
    table = np.zeros(num, layout.ALLOCATION)
    table["ptr"], table["size"] = start + 8 * np.arange(num), 8
    small = beton_bytes(SAMPLES, 1 << 12)
    with open(path, "wb") as file:
        file.write(small[: layout.metadata_start(2)])
        metadata.tofile(file)
        file.seek(start + 8 * num)
        table.tofile(file)
    edit(path, 8, np.array([num, start + 8 * num], np.uint64).tobytes())
    records = BetonRecords(path)
    assert len(records) == num and len(records.read(7)) == 8
