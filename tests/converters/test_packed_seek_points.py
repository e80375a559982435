"""Packing notes where the decoding of JPEGs can begin, and loader turbo makes use of it."""

import json
import shutil
from contextlib import closing
from io import BytesIO

import numpy as np
import pytest
import torch
from listed import listed
from pictures import smooth_picture
from PIL import Image

from converters import encode as encoding_module
from converters.command import main
from converters.encode import Encoding, UndecodableImage, Wanted, encode
from converters.inspection.verify import verify
from converters.packing import PackSettings, pack
from converters.restarts import points_of
from converters.split_pass import Rules
from loaders import packed_folder
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.native import library
from loaders.orders import Shuffled
from loaders.packed_folder import open_packed
from loaders.plan import Plan, View
from loaders.records import open_records
from loaders.sample_table import SampleTable
from loaders.seek_points import SeekPoints

pytestmark = pytest.mark.skipif(library.load() is None, reason=f"no native kernel: {library.why_not()}")

WITH = Encoding(seek_points=True)
JPEG = Wanted(True, False)


def stored(kind="JPEG", **options):
    """An image's file, uint8 [size]."""
    noise = np.random.default_rng(0).integers(-30, 31, (200, 300, 3))
    buffer = BytesIO()
    Image.fromarray(np.clip(smooth_picture(300, 200, 4) + noise, 0, 255).astype(np.uint8)).save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def packed(image_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "packed"
    pack(listed(image_folder), out, PackSettings(WITH, ("beton", "shards", "raw")), 0)
    return out


@pytest.mark.parametrize(
    ("data", "encoding", "is_kept"),
    [
        (stored(), WITH, True),
        (stored(), Encoding(seek_points=True, check="structure"), True),
        (stored(), Encoding(seek_points=True, limit_px=150), False),
        (stored("PNG"), WITH, False),
        (stored(progressive=True), WITH, False),
    ],
    ids=["kept", "walked", "shrunk", "PNG", "progressive"],
)
def test_they_are_noted_of_the_very_jpeg_that_is_stored(data, encoding, is_kept):
    encoded = encode(data, None, encoding, JPEG)
    assert encoded.seek_points == points_of(np.frombuffer(encoded.jpeg, np.uint8)) != b""
    assert encoded.is_original == is_kept and (encoded.jpeg == data.tobytes()) == is_kept
    assert encode(data, None, encoding, Wanted(False, True)).seek_points == b""


def test_a_file_whose_points_were_found_is_not_decoded_again_and_damaged_ones_are_refused(monkeypatch):
    data, reduced = stored(quality=92), []
    monkeypatch.setattr(encoding_module, "_decode_reduced", lambda *whatever: reduced.append(1))
    encode(data, None, WITH, JPEG)
    assert not reduced
    monkeypatch.undo()
    wrong = data.copy()
    wrong[data.size // 2 : data.size // 2 + 60] = 0xFF
    for damaged in (wrong, data[: data.size // 2]):
        with pytest.raises(UndecodableImage):
            encode(damaged, None, WITH, JPEG)


def test_the_folder_has_a_file_of_them_and_verify_compares_it(packed, tmp_path):
    assert not verify(packed, 0).findings
    split = json.loads((packed / "manifest.json").read_text())["splits"]["val"]
    table = SampleTable(packed / "val.samples.npz", split["num_samples"])
    points = SeekPoints(packed / "val.seek", table.column("seek_bytes"), table.path)
    for format in ("beton", "shards"):
        records = open_packed(packed, "val", format)
        for index in range(len(records)):
            noted = points.of(index)
            assert (b"" if noted is None else noted.tobytes()) == points_of(records.read(index)), format
    folder = shutil.copytree(packed, tmp_path / "packed")
    content = bytearray((folder / "train.seek").read_bytes())
    content[20] ^= 1
    (folder / "train.seek").write_bytes(content)
    findings = verify(folder, 0).findings
    assert any("train.seek has SHA-256" in one for one in findings)
    assert any("train.seek, sample 0 at 0, has other seek points than its JPEG" in one for one in findings)
    (folder / "train.seek").write_bytes(content[:-5])
    assert "train.seek has" in verify(folder, 0).findings[0] and "was cut short" in verify(folder, 0).findings[0]
    with pytest.raises(FeedrateError, match="cut short or replaced"):
        open_records(folder, "train")


@pytest.mark.parametrize("format", ["beton", "shards"])
def test_turbo_asks_for_them_and_its_batches_are_the_same(image_folder, packed, tmp_path, monkeypatch, format):
    batches, asked = {}, []
    addresses = SeekPoints.addresses
    monkeypatch.setattr(
        SeekPoints, "addresses", lambda points, ids: asked.extend(ids.tolist()) or addresses(points, ids)
    )
    for name, encoding in (("without", Encoding()), ("with", WITH)):
        asked.clear()
        pack(listed(image_folder), tmp_path / name, PackSettings(encoding, (format,)), 0)
        records = open_records(tmp_path / name, "train")
        plan = Plan(records.widths, records.heights, Shuffled(8), View(RandomResizedCrop(), 48, 0.5), seed=1)
        loader = open_loader("turbo", records, plan, LoaderOptions())
        before = library.num_windows_sought(library.load())[0]
        batches[name] = [(batch.images.clone(), batch.ids.clone()) for batch in loader.epoch(0)]
        loader.close()
        sought = library.num_windows_sought(library.load())[0] - before
        delivered = torch.cat([ids for _, ids in batches[name]]).sort().values.tolist()
        assert delivered and sorted(asked) == (delivered if name == "with" else [])
        assert sought == (sum(records.seek_points.sizes[delivered] > 0) if name == "with" else 0)
    for one, other in zip(batches["without"], batches["with"], strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_where_their_file_goes_away_images_are_decoded_from_their_start_and_that_is_said(packed, tmp_path):
    folder = shutil.copytree(packed, tmp_path / "packed")
    records = open_records(folder, "train")
    plan = Plan(records.widths, records.heights, Shuffled(8), View(RandomResizedCrop(), 48, 0.5), seed=1)
    records.seek_points.path.unlink()
    with closing(open_loader("turbo", records, plan, LoaderOptions(num_workers=1))) as loader:
        before = library.num_files_decoded(library.load())
        with pytest.warns(RuntimeWarning, match="train.seek cannot be read"):
            num = sum(int((batch.ids >= 0).sum()) for batch in loader.epoch(0))
        assert library.num_files_decoded(library.load()) - before == num > 0  # by the kernel, as ever


def test_pixels_open_without_them_since_nothing_is_decoded(packed, monkeypatch):
    def refuse(*arguments):
        raise FeedrateError("train.seek is damaged")

    monkeypatch.setattr(packed_folder, "SeekPoints", refuse)
    assert len(open_packed(packed, "train", "raw")) == 37
    for name in ("beton", "shards"):
        with pytest.raises(FeedrateError, match="train.seek is damaged"):
            open_packed(packed, "train", name)


def test_manifests_say_whether_there_are_some(image_folder, tmp_path, packed):
    pack(listed(image_folder), tmp_path / "plain", PackSettings(Encoding()), 0)
    for folder, expected in ((tmp_path / "plain", False), (packed, True)):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["settings"]["seek_points"] == expected == bool(list(folder.glob("*.seek")))
        assert [bool(split["seek_points"]) for split in manifest["splits"].values()] == [expected] * 2


def packing(image_folder, out, *options):
    command = ["folder", "--source", str(image_folder), "--out", str(out), "--workers", "1", *options]
    return main(command, "", lambda name, path: None)


def test_the_command_notes_them_unless_told_otherwise(image_folder, tmp_path, capsys):
    for name, options, expected in (
        ("usual", [], True),
        ("told", ["--seek-points"], True),
        ("none", ["--no-seek-points"], False),
        ("restarts", ["--restart-markers"], False),
        ("raw", ["--to", "raw"], False),
        ("walked", ["--check", "structure"], False),
        ("both", ["--check", "structure", "--seek-points"], True),
        ("pixels", ["--write-mode", "raw"], False),
        ("shards", ["--write-mode", "raw", "--to", "beton,shards"], True),
    ):
        assert packing(image_folder, tmp_path / name, *options) == 0
        assert (tmp_path / name / "train.seek").exists() == expected == ("seek points)" in capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seek-points", "--restart-markers"], "exclude each other: give one"),
        (["--seek-points", "--to", "raw"], "are of JPEGs, and none are written"),
        (["--seek-points", "--write-mode", "raw"], "are of JPEGs, and none are written"),
    ],
)
def test_what_makes_no_sense_is_refused(image_folder, tmp_path, capsys, options, told):
    assert packing(image_folder, tmp_path / "out", *options) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_kernel_there_are_none_and_that_is_said(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "load", lambda resize="area": None)
    monkeypatch.setattr(library, "why_not", lambda resize="area": "there is no C compiler: install gcc")
    assert packing(image_folder, tmp_path / "out", "--seek-points") == 2
    assert "--seek-points needs the native kernel: there is no C compiler" in capsys.readouterr().err
    assert packing(image_folder, tmp_path / "out") == 0
    assert "no seek points, with which crops would decode faster: there is no C compiler" in capsys.readouterr().out
    assert not (tmp_path / "out" / "train.seek").exists()


def test_without_the_kernel_verify_says_once_that_it_does_not_compare_them(packed, monkeypatch, capsys):
    monkeypatch.setattr(library, "load", lambda exact=False: None)
    monkeypatch.setattr(library, "why_not", lambda exact=False: "there is no C compiler: install gcc")
    found = verify(packed, 0)
    assert not found.findings and not capsys.readouterr().out
    (remark,) = found.remarks
    assert remark == "seek points are not compared with the JPEGs: there is no C compiler: install gcc"
    assert main(["verify", str(packed)], "", None) == 0
    assert capsys.readouterr().out.splitlines()[0] == remark


def test_the_same_command_goes_by_what_was_packed_before(image_folder, tmp_path, monkeypatch, capsys):
    for name, option in (("old", "--no-seek-points"), ("new", "--seek-points")):
        assert packing(image_folder, tmp_path / name, option) == 0
        capsys.readouterr()
        assert packing(image_folder, tmp_path / name) == 0
        assert "nothing to do" in capsys.readouterr().out
    assert packing(image_folder, tmp_path / "old", "--overwrite") == 0 and (tmp_path / "old" / "train.seek").exists()
    monkeypatch.setattr(library, "load", lambda resize="area": None)
    monkeypatch.setattr(library, "why_not", lambda resize="area": "there is no C compiler: install gcc")
    assert packing(image_folder, tmp_path / "new") == 2
    assert "new, which has seek points, needs the native kernel: there is no C compiler" in capsys.readouterr().err


def test_show_counts_them(packed, capsys):
    assert main(["show", str(packed), "--num-samples", "0"], "", lambda name, path: None) == 0
    told = capsys.readouterr().out
    assert "seek points, train" in told and "a crop decodes little more of a JPEG than it needs" in told


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_kernel_that_is_switched_off_is_no_fault_of_images_and_each_packing_goes_by_its_own_environment(
    image_folder, tmp_path, monkeypatch, num_workers
):
    settings, rules = PackSettings(WITH, ("beton",)), Rules(skip_bad=True, most_bad=1000)
    pack(listed(image_folder), tmp_path / "before", settings, num_workers)  # which starts what forks workers
    monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    with pytest.raises(FeedrateError, match="switched off by FEEDRATE_NATIVE=0"):
        pack(listed(image_folder), tmp_path / "off", settings, num_workers, rules)
    monkeypatch.delenv("FEEDRATE_NATIVE")
    pack(listed(image_folder), tmp_path / "off", settings, num_workers, rules)
    assert (tmp_path / "off" / "train.seek").read_bytes() == (tmp_path / "before" / "train.seek").read_bytes()
