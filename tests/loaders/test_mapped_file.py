"""Files are mapped without staying open, and unmapped when nobody looks any more."""

import gc
import os
import pickle
from pathlib import Path

import pytest
from packed_by_hand import FORMATS

from loaders.errors import LoaderError
from loaders.mapped_file import MappedFile
from loaders.packed_folder import open_packed


def num_open() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def num_mapped(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(folder))


def test_more_files_than_may_be_open_can_be_mapped_and_all_go_again(tmp_path):
    files = []
    for number in range(2000):
        path = tmp_path / f"{number}"
        path.write_bytes(b"%04d" % number)
        files.append(MappedFile(path, 4))
    before = num_open()
    assert num_mapped(tmp_path) == 0, "mapped before anybody looked"
    assert [bytes(file.view(0, 4)) for file in files] == [b"%04d" % number for number in range(2000)]
    assert num_open() == before and num_mapped(tmp_path) == 2000
    kept = files[7].view(2, 2)
    gc.disable()
    try:
        del files
        assert num_mapped(tmp_path) == 1, "without the garbage collector's help"
        assert bytes(kept) == b"07"
        del kept
        assert num_mapped(tmp_path) == 0
    finally:
        gc.enable()


def test_a_view_is_a_view_and_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    view = MappedFile(tmp_path / "file", 10).view(3, 4)
    assert bytes(view) == b"3456"
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True


@pytest.mark.parametrize("content", [b"", b"12", b"1234"])
def test_a_file_of_another_size_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LoaderError, match="changed"):
        MappedFile(tmp_path / "file", 3).view(0, 1)


def test_a_file_that_is_gone_is_refused_by_its_name_and_nothing_stays_open(tmp_path):
    sent = pickle.loads(pickle.dumps(MappedFile(tmp_path / "file", 3)))
    before = num_open()
    with pytest.raises(LoaderError, match=r"file cannot be read \(No such file"):
        sent.view(0, 1)
    (tmp_path / "file").mkdir()
    with pytest.raises(LoaderError):
        sent.view(0, 1)
    assert num_open() == before


@pytest.mark.parametrize("kind", FORMATS)
def test_a_set_packed_anew_while_it_is_open_is_refused_and_not_read_at_the_old_places(packed, kind):
    """Of the same size, as raw pixels are in any order."""
    records = open_packed(packed, "train", kind)
    path = records.paths[0] if kind == "shards" else records.path
    old = path.stat()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000_000))
    for opened in (records, pickle.loads(pickle.dumps(records))):
        with pytest.raises(LoaderError, match="has changed since it was opened"):
            opened.read(0)
