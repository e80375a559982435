"""Stored bytes leave the page cache and come back, whoever has looked at them."""

from pathlib import Path

import numpy as np
import pytest
from resident_share import resident_share

from loaders import page_eviction
from loaders.mapped_file import MappedFile, MappedRecords
from loaders.page_eviction import bring_in, evict, is_virtual_machine, stored_bytes
from loaders.records import open_records

NUM, SIZE = 40, 50_000
HALF = np.arange(0, NUM, 2)


class PlainRecords(MappedRecords):
    """Samples of noise, one after the other in one file."""

    def __init__(self, path):
        self.path = path
        path.write_bytes(np.random.default_rng(0).bytes(NUM * SIZE))
        self.labels = np.zeros(NUM, np.int64)
        self.sizes = np.full(NUM, SIZE, np.int64)
        self.positions = np.arange(NUM, dtype=np.int64) * SIZE
        self._file = MappedFile(path, NUM * SIZE)


@pytest.fixture
def storage(tmp_path):
    """A folder on a file system that can forget: one in memory cannot."""
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    place = next(str(parent) for parent in [tmp_path, *tmp_path.parents] if str(parent) in kinds)
    if kinds[place] in ("tmpfs", "ramfs"):
        pytest.skip(f"{tmp_path} lies in memory")
    return tmp_path


def test_bytes_that_are_mapped_looked_at_and_not_yet_written_leave_memory_all_the_same(storage):
    records = PlainRecords(storage / "noise")
    wanted = stored_bytes(records, HALF)
    assert sum(int(records.read(index)[::4096].sum()) for index in range(NUM)) > 0
    assert resident_share(wanted) == 1
    assert evict(wanted).gone_share > 0.9
    assert resident_share(wanted) < 0.1
    assert records.read(2).tobytes() == (storage / "noise").read_bytes()[2 * SIZE : 3 * SIZE]  # the map still serves


def test_they_come_back(storage):
    wanted = stored_bytes(PlainRecords(storage / "noise"), HALF)
    evict(wanted)
    bring_in(wanted)
    assert resident_share(wanted) == 1


def test_a_folders_images_are_evicted_one_by_one(image_folder, storage):
    records = open_records(image_folder, "train")
    ids = np.array([0, 5, 5, -1])
    wanted = stored_bytes(records, ids)
    assert wanted.num_bytes == sum(Path(records.where(index)).stat().st_size for index in (0, 5))
    others = stored_bytes(records, np.arange(6, len(records)))
    bring_in(others)
    assert evict(wanted).gone_share > 0.9
    assert resident_share(others) == 1


def test_what_no_file_holds_has_no_stored_bytes(image_folder):
    class InMemory:
        def __len__(self):
            return 3

        def where(self, index):
            return f"made up, number {index}"

    assert stored_bytes(InMemory(), np.arange(3)) is None
    records = open_records(image_folder, "train")
    records.is_in_memory = True  # whatever files it names
    assert stored_bytes(records, np.arange(3)) is None


def test_where_the_system_would_not_tell_the_truth_it_is_not_asked(storage, monkeypatch):
    wanted = stored_bytes(PlainRecords(storage / "noise"), HALF)
    monkeypatch.setattr(page_eviction.os, "geteuid", lambda: 12345)
    done = evict(wanted)
    assert done.gone_share is None and "owner of noise" in done.reason


@pytest.mark.parametrize(
    ("text", "virtual"), [("flags : fpu vme hypervisor sse\n", True), ("flags : fpu\nbugs : hypervisor\n", False)]
)
def test_a_virtual_machine_is_known_by_its_processors_flags(text, virtual, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert is_virtual_machine(tmp_path / "cpuinfo") is virtual
    assert is_virtual_machine(tmp_path / "none") is False
