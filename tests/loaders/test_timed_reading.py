"""When stage "read" of a sample is over, what is needed of it lies in memory: decoding waits for no disk."""

import mmap
import os
import threading
import time

import numpy as np
import pytest
from cached_pages import forget, in_memory

from loaders import mapped_file
from loaders.addresses import address_of
from loaders.mapped_file import MappedFile, MappedRecords
from loaders.native import library
from loaders.native.kernel import ROW, Kernel
from loaders.stage_times import Delay, StageTimes
from loaders.stage_writer import UNTIMED
from loaders.synthetic_records import SyntheticRecords
from loaders.timed_reading import read_timed

WIDTH, HEIGHT = 1024, 64
SIZE = 3 * WIDTH * HEIGHT  # 48 pages
RECT = [100, 20, 200, 20]  # its rows are bytes 61,440 … 122,879: pages 15 … 29
NEEDED = slice(15, 30)
PATIENCE_S = 6.0


class OneSample(MappedRecords):
    """Noise: pixels, or what shall be taken for a file."""

    def __init__(self, path, is_raw: bool) -> None:
        self.path = path
        path.write_bytes(np.random.default_rng(0).bytes(SIZE))
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        self.labels = self.positions = np.zeros(1, np.int64)
        self.sizes = np.full(1, SIZE)
        self.widths, self.heights = np.full(1, WIDTH), np.full(1, HEIGHT)
        self.is_raw = np.full(1, is_raw)
        self._file = MappedFile(path, SIZE)


@pytest.fixture(params=[True, False], ids=["pixels", "file"])
def sample(request, tmp_path):
    """One sample that is not in memory, of which the system reads no more than it is asked for."""
    records = OneSample(tmp_path / "data", request.param)
    records._file.advise(0, SIZE, mmap.MADV_RANDOM)
    forget(records.path, SIZE)
    return records


def has_needed(sample) -> bool:
    return bool(in_memory(sample.path, SIZE)[NEEDED if sample.is_raw[0] else slice(None)].all())


def assert_needed_alone(sample):
    assert has_needed(sample)
    if sample.is_raw[0]:
        found = in_memory(sample.path, SIZE)
        assert not found[: NEEDED.start].any() and not found[NEEDED.stop + 1 :].any()


@pytest.mark.parametrize("asks_the_system", [True, False])
def test_in_python(sample, asks_the_system, monkeypatch):
    if not asks_the_system:
        monkeypatch.setattr(mapped_file, "populate", lambda view: False)
    times = StageTimes(1)
    data = read_timed(sample, 0, RECT, times.writer(0))
    assert_needed_alone(sample)
    assert times.read()["read"].count == 1
    assert data.tobytes() == sample.path.read_bytes()


def test_in_the_kernel(sample):
    if library.load() is None:
        pytest.skip(library.why_not())
    times = StageTimes(1, {"read": Delay("sleep", PATIENCE_S + 0.5)})
    data = sample.read(0)
    table = np.zeros(1, ROW)
    table["address"], table["num_bytes"], table["is_raw"] = address_of(data), SIZE, sample.is_raw
    table["width"], table["height"], table["rect"] = WIDTH, HEIGHT, RECT
    kernel = Kernel(library.load(), 8, (0, 0, 0), times=times.writer(0))
    out = np.zeros((1, 8, 8, 3), np.uint8)
    painting = threading.Thread(target=kernel, args=(table, out))
    painting.start()
    deadline = time.monotonic() + PATIENCE_S
    while not has_needed(sample) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert_needed_alone(sample)
    assert times.read() == {} and not out.any()  # it is reading, which ends with the delay
    painting.join()
    assert times.read()["read"].wall_s >= PATIENCE_S + 0.5


def test_nothing_is_brought_in_where_nothing_is_noted(sample):
    read_timed(sample, 0, RECT, UNTIMED)
    assert not in_memory(sample.path, SIZE).any()


def test_what_is_in_memory_from_the_start_is_not_read(sample):
    sample.is_in_memory = True
    times = StageTimes(1)
    read_timed(sample, 0, RECT, times.writer(0))
    assert times.read() == {} and not in_memory(sample.path, SIZE).any()


def test_making_a_picture_up_is_no_reading():
    times = StageTimes(1)
    assert len(read_timed(SyntheticRecords(1, 1, 8, 8), 0, None, times.writer(0))) == 3 * 8 * 8
    assert times.read() == {}


@pytest.mark.parametrize("rect", [[0, -50, 9, 20], [0, 60, 9, 30], [0, 90, 9, 5], [-9, -9, 2000, 200]])
def test_rectangles_past_the_border_are_no_trouble(sample, rect):
    times = StageTimes(1)
    assert len(read_timed(sample, 0, rect, times.writer(0))) == SIZE
    assert times.read()["read"].count == 1
