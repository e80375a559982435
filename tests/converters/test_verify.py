"""`verify` finds whatever is wrong in a packed folder, and nothing in one that is whole."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from listed import listed
from PIL import Image

from converters.encode import Encoding
from converters.inspection.checksums import Checksums
from converters.inspection.verify import verify
from converters.packing import PackSettings, pack
from converters.split_pass import Rules
from loaders.errors import FeedrateError
from loaders.packed_folder import open_packed
from loaders.sample_table import SampleTable

REPOSITORY = Path(__file__).resolve().parents[2]
ALL = ("beton", "shards", "raw")


@pytest.fixture(scope="module")
def whole(image_folder, tmp_path_factory):
    """A packed folder that nobody has touched, by its settings."""
    made = {}

    def packed(formats=ALL, encoding=Encoding()):
        if (formats, encoding) not in made:
            out = tmp_path_factory.mktemp("whole") / "packed"
            pack(listed(image_folder), out, PackSettings(encoding, formats), 0)
            made[formats, encoding] = out
        return made[formats, encoding]

    return packed


@pytest.fixture
def folder(whole, tmp_path):
    """A copy in all formats, to be damaged."""
    return shutil.copytree(whole(), tmp_path / "packed")


def signed(folder):
    """The manifest is made to tell the sizes and checksums of the files as they are: the damage is consistent."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for split in manifest["splits"].values():
        for file in (split["samples"], *(file for files in split["formats"].values() for file in files)):
            content = (folder / file["name"]).read_bytes()
            file.update(num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def edit_table(folder, split, change):
    path = folder / f"{split}.samples.npz"
    with np.load(path) as stored:
        columns = {name: stored[name].copy() for name in stored.files}
    change(columns)
    with open(path, "wb") as file:
        np.savez(file, **columns)


def edit_bytes(path, position, new):
    content = bytearray(path.read_bytes())
    content[position : position + len(new)] = new
    path.write_bytes(content)


def findings(folder):
    return verify(folder, 0).findings


def only(folder):
    (finding,) = findings(folder)
    return finding


@pytest.mark.parametrize("formats", [*((name,) for name in ALL), ALL], ids=lambda formats: "+".join(formats))
@pytest.mark.parametrize(
    "encoding",
    [Encoding(), Encoding(limit_px=60, quality=95), Encoding("raw"), Encoding("mix", limit_px=90)],
    ids=["kept", "shrunk", "raw", "mix"],
)
def test_a_whole_folder_is_found_whole(whole, formats, encoding):
    folder = whole(formats, encoding)
    told = verify(folder, 0)
    assert told.findings == []
    assert told.num_samples == 37 + 23 and told.looked_inside
    assert told.num_bytes == sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")


def test_processes_find_the_same_as_this_one_and_the_progress_adds_up(folder):
    edit_bytes(folder / "train.npy", 128 + 5000, b"\x00\x01\x02\x03")
    seen = {}

    class Phase:
        def __init__(self, label, total, num_before=0):
            self.label, seen[label] = label, [total, num_before, 0]

        def __enter__(self):
            return self.advance

        def advance(self, num_samples, num_bytes):
            seen[self.label][1] += num_samples
            seen[self.label][2] += num_bytes

        def __exit__(self, *_):
            pass

    told = verify(signed(folder), 2, Phase)
    assert told.findings == findings(folder) != []
    assert {label: (total, done) for label, (total, done, _) in seen.items()} == {
        "compare train": (37, 37),
        "compare val": (23, 23),
        "checksums": (60, 60),
    }
    sizes = sum(sum(open_packed(folder, "train", name).sizes) for name in ALL)
    assert seen["compare train"][2] == sizes


def test_one_flipped_byte_in_the_pages_is_found_by_checksum_and_by_sample(folder):
    records = open_packed(folder, "train", "beton")
    position = int(records.positions[11] + records.sizes[11] // 2)
    edit_bytes(folder / "train.beton", position, bytes([(folder / "train.beton").read_bytes()[position] ^ 1]))
    first, second, *_ = findings(folder)
    assert first.startswith(f"{folder / 'train.beton'} has SHA-256 ")
    assert "sample 11 at" in second and "another JPEG" in second


def test_a_byte_between_the_samples_is_found_by_its_checksum(folder):
    edit_bytes(folder / "val.beton", 5000, b"\x01")
    assert "val.beton has SHA-256" in only(folder)


def swap(names):
    names[0], names[2] = names[2], names[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: swap(manifest["class_names"]),
        lambda manifest: swap(manifest["classes"]) or swap(manifest["class_names"]),
        lambda manifest: manifest["class_names"].__setitem__(1, "wasp"),
    ],
    ids=["names swapped", "classes swapped", "renamed"],
)
def test_classes_that_are_called_otherwise_than_when_packed_are_told(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    assert "manifest.json names other classes" in only(folder)


def test_a_manifest_that_does_not_tell_of_its_task_is_compared_without_it(folder):
    path = folder / "manifest.json"
    for source in ({}, {"task": {}}, {"task": "nothing"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}))
        told = verify(folder, 0)
        assert told.findings == told.remarks == []


def test_a_file_of_a_packed_folder_is_refused_and_its_folder_named(folder, tmp_path):
    for name in ("train.beton", "manifest.json"):
        with pytest.raises(FeedrateError, match=f"{folder / name} is a file.*: give its folder, {folder}$"):
            verify(folder / name, 0)
    lone = Path(shutil.copy(folder / "train.beton", tmp_path / "lone.beton"))
    with pytest.raises(FeedrateError, match="lone.beton is a file.*: give a packed folder, what --out named"):
        verify(lone, 0)


def test_a_file_cut_short_is_told_and_nothing_is_looked_at(folder):
    with open(folder / "train-000000.tar", "r+b") as file:
        file.truncate(1000)
    told = verify(folder, 0)
    (finding,) = told.findings  # that nothing was looked at is not wrong as well
    assert "train-000000.tar has 1,000 bytes and manifest.json says" in finding
    assert told.num_samples == 0 and not told.looked_inside


def test_every_missing_file_is_named(folder):
    for name in ("train.npy", "val-000000.idx"):
        (folder / name).unlink()
    told = findings(folder)
    assert [one.split()[0] for one in told] == [str(folder / "train.npy"), str(folder / "val-000000.idx")]
    assert all("is named in manifest.json but missing" in one for one in told)


def test_files_that_changed_places_are_found(whole, tmp_path):
    folder = shutil.copytree(whole(("raw",)), tmp_path / "packed")
    edit_table(
        folder,
        "val",
        lambda columns: columns["source_index"].__setitem__(slice(None), np.roll(columns["source_index"], 1)),
    )
    assert "val.samples.npz has SHA-256" in only(folder)  # of the very size it had
    for name, other in (("train.npy", "val.npy"), ("val.npy", "train.npy")):
        shutil.copy(whole(("raw",)) / other, folder / name)
    assert sum("it was cut short or replaced" in one for one in findings(folder)) == 2


@pytest.mark.parametrize("formats", [("beton",), ("shards",), ALL], ids=lambda formats: "+".join(formats))
def test_two_labels_that_changed_places_in_the_table_are_found(whole, tmp_path, formats):
    folder = shutil.copytree(whole(formats), tmp_path / "packed")
    labels = SampleTable(folder / "train.samples.npz", 37).column("labels")
    first, second = 0, int(np.flatnonzero(labels != labels[0])[0])

    def swap(columns):
        columns["labels"][[first, second]] = columns["labels"][[second, first]]

    edit_table(folder, "train", swap)
    told = findings(signed(folder))
    if "beton" in formats:
        assert (
            f"train.beton, sample 0 has label {labels[0]} and {labels[second]} in train.samples.npz (2 such)" in told[0]
        )
    if "shards" in formats:
        assert any(
            f"sample 0 at 0, has label {labels[0]} in its .cls and {labels[second]} in the table" in one for one in told
        )


def test_a_wrong_label_in_the_table_is_found_by_the_counts(folder):
    edit_table(folder, "val", lambda columns: columns["labels"].__setitem__(3, (columns["labels"][3] + 1) % 3))
    assert "samples of class" in findings(signed(folder))[0]
    assert any("val.beton, sample 3 has label" in one for one in findings(folder))


def test_a_label_beyond_the_classes_is_found(folder):
    edit_table(folder, "val", lambda columns: columns["labels"].__setitem__(3, 3))
    assert "sample 3 has a label that is not 0 … 2" in findings(signed(folder))[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("cls ", "cls 1", 1), "line 2 is 'jpg"),
        (lambda text: text.replace("v1.2 37", "v1.2 36"), "line 1 is 'v1.2 36'"),
        (lambda text: text.replace("jpg 512 ", "jpg 513 "), "'jpg 513 "),
        (lambda text: text[: text.rindex("jpg ", 0, -40)], "train-000000.tar needs"),
        (lambda text: text + "jpg 1 1 a.jpg\n", "needs ''"),
    ],
    ids=["label", "count", "offset", "short", "long"],
)
def test_an_index_that_does_not_fit_its_shard_is_found(folder, change, told):
    path = folder / "train-000000.idx"
    path.write_text(change(path.read_text()))
    assert told in only(signed(folder)) and str(path) in only(folder)


def test_pixels_of_another_sample_are_found(folder):
    records = open_packed(folder, "train", "raw")
    same = np.flatnonzero((records.widths == records.widths[0]) & (records.heights == records.heights[0]))
    first, second = (int(records.positions[i]) for i in same[:2])
    size, content = int(records.sizes[0]), (folder / "train.npy").read_bytes()
    edit_bytes(folder / "train.npy", first, content[second : second + size])
    edit_bytes(folder / "train.npy", second, content[first : first + size])
    told = findings(signed(folder))
    assert len(told) == 2 and f"sample {same[0]} at" in told[0] and "has other pixels than" in told[0]


def test_pixels_are_compared_between_the_formats_that_hold_them(whole, tmp_path):
    folder = shutil.copytree(whole(("beton", "raw"), Encoding("raw")), tmp_path / "packed")
    records = open_packed(folder, "val", "beton")
    position = int(records.positions[4]) + 100
    edit_bytes(folder / "val.beton", position, bytes([(folder / "val.beton").read_bytes()[position] ^ 1]))
    assert "val.npy, sample 4 at" in only(signed(folder)) and "val.beton, sample 4 at" in only(folder)


def test_a_sample_that_is_there_twice_is_found(folder):
    edit_table(folder, "val", lambda columns: columns["source_index"].__setitem__(1, columns["source_index"][0]))
    assert "val.samples.npz has a sample of the source twice" in only(signed(folder))


def test_a_size_that_is_not_the_image_s_is_found(whole, tmp_path):
    folder = shutil.copytree(whole(("shards",)), tmp_path / "packed")
    edit_table(folder, "val", lambda columns: columns["widths"].__setitem__(5, 1000))
    assert "sample 5 at" in only(signed(folder)) and "and 1000×" in only(folder)


def test_an_image_that_cannot_be_decoded_is_found_though_its_checksum_is_right(whole, tmp_path):
    folder = shutil.copytree(whole(("beton",)), tmp_path / "packed")
    records = open_packed(folder, "val")
    edit_bytes(folder / "val.beton", int(records.positions[9] + records.sizes[9]) - 60, bytes(60))
    assert "sample 9 at" in only(signed(folder)) and "cannot be decoded" in only(folder)


def test_a_label_and_a_header_within_a_shard_are_compared(folder):
    with tarfile.open(folder / "val-000000.tar") as shard:
        label = shard.getmember("000000007.cls")
        image = shard.getmember("000000008.jpg")
    edit_bytes(folder / "val-000000.tar", label.offset_data, b"9")
    edit_bytes(folder / "val-000000.tar", image.offset, b"1")
    told = findings(signed(folder))
    assert "sample 7 at" in told[0] and "has label 9 in its .cls" in told[0]
    assert "sample 8 at" in told[1] and "has no header, where the table says 000000008.jpg" in told[1]


def test_a_header_within_a_shard_that_is_no_file_s_is_found(folder):
    with tarfile.open(folder / "val-000000.tar") as shard:
        image = shard.getmember("000000008.jpg")
    image.type = tarfile.LNKTYPE  # a link of that name and size
    edit_bytes(folder / "val-000000.tar", image.offset, image.tobuf(tarfile.USTAR_FORMAT))
    told = findings(signed(folder))
    assert "sample 8 at" in told[0] and "has no header, where the table says 000000008.jpg" in told[0]


def test_many_wrong_samples_are_counted_and_twenty_named(whole, tmp_path):
    folder = shutil.copytree(whole(("shards",)), tmp_path / "packed")
    edit_table(folder, "train", lambda columns: columns["heights"].__iadd__(1))
    told = findings(signed(folder))
    assert len(told) == 21 and told[-1] == f"{folder}: 'train' has 17 more findings about samples"


def test_what_was_left_over_is_found(folder):
    for name in ("train-000001.tar", "old.beton", "manifest.json.partial", "notes.txt"):
        (folder / name).touch()
    (folder / "packing.partial").mkdir()
    told = findings(folder)
    named = [one.split()[0].removeprefix(f"{folder}/") for one in told]
    assert named == ["manifest.json.partial", "old.beton", "packing.partial", "train-000001.tar"]


def edit_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(limit_px=60, quality=95)], ids=["exact", "encoded"])
@pytest.mark.parametrize(("name", "by"), [("mean", 0.001), ("std", -0.001)])
def test_statistics_that_were_changed_are_found(whole, tmp_path, encoding, name, by):
    folder = shutil.copytree(whole(("beton",), encoding), tmp_path / "packed")
    edit_manifest(folder, lambda manifest: change_statistics(manifest, name, by))
    assert "has statistics that are not those that packing counted" in only(folder)


def change_statistics(manifest, name, by):
    manifest["statistics"][name][1] += by


@pytest.mark.parametrize("formats", [("beton",), ALL])
def test_statistics_are_compared_with_the_pixels_that_were_counted(whole, tmp_path, formats):
    """Of a set that was packed wrong, or before packing noted their hash."""
    folder = shutil.copytree(whole(formats), tmp_path / "packed")
    edit_manifest(folder, lambda manifest: change_statistics(manifest, "mean", 0.001))
    edit_manifest(folder, lambda manifest: manifest["source"].pop("statistics_sha256"))
    assert "has statistics that are not those of its 'train' split" in only(folder)


def test_statistics_of_images_encoded_since_that_have_no_hash_are_not_compared_and_it_says_so(whole, tmp_path):
    folder = shutil.copytree(whole(("beton",), Encoding(limit_px=60, quality=95)), tmp_path / "packed")
    edit_manifest(folder, lambda manifest: manifest["source"].pop("statistics_sha256"))
    told = verify(folder, 0)
    assert told.findings == [] and "statistics of 'train' are not compared" in " ".join(told.remarks)


@pytest.mark.parametrize("mean, std", [(1000.0, 0.0), (-7.0, 0.0), (100.0, 999.0), (100.0, -1.0), (float("nan"), 1.0)])
def test_statistics_that_no_pixels_have_are_found_also_without_their_hash(whole, tmp_path, mean, std):
    folder = shutil.copytree(whole(("beton",), Encoding(limit_px=60, quality=95)), tmp_path / "packed")
    edit_manifest(folder, lambda manifest: manifest["source"].pop("statistics_sha256"))
    edit_manifest(folder, lambda manifest: manifest["statistics"]["mean"].__setitem__(1, mean))
    edit_manifest(folder, lambda manifest: manifest["statistics"]["std"].__setitem__(1, std))
    assert "has statistics that no pixels have" in only(folder)


def test_statistics_written_as_whole_numbers_have_the_hash_of_these(tmp_path):
    (tmp_path / "in" / "train" / "white").mkdir(parents=True)
    Image.new("RGB", (8, 8), "white").save(tmp_path / "in" / "train" / "white" / "0.png")
    pack(listed(tmp_path / "in"), tmp_path / "out", PackSettings(), 0)
    edit_manifest(tmp_path / "out", lambda manifest: manifest["statistics"].update(mean=[255, 255, 255], std=[0, 0, 0]))
    assert findings(tmp_path / "out") == []


@pytest.mark.parametrize("quality", [3, 100])
def test_images_that_lose_much_when_encoded_are_not_called_wrong(tmp_path, quality):
    rng = np.random.default_rng(5)
    (tmp_path / "in" / "train" / "dots").mkdir(parents=True)
    for number, (width, height) in enumerate([(1, 1), (1, 9), (9, 1), (2, 3), (33, 17), (127, 16), (128, 128)]):
        speckled = rng.integers(0, 256, (height, width, 3), np.uint8)  # what chroma subsampling changes most
        Image.fromarray(speckled).save(tmp_path / "in" / "train" / "dots" / f"{number}.png")
    pack(listed(tmp_path / "in"), tmp_path / "out", PackSettings(encoding=Encoding(quality=quality)), 0)
    assert findings(tmp_path / "out") == []


def test_a_number_of_kept_images_that_cannot_be_is_found(folder):
    edit_manifest(folder, lambda manifest: manifest["source"]["num_original"].update(train=38))
    assert "says that 38 of the 37 images of 'train' kept their bytes" in only(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda split: split.update(num_bad=1),
            "bad_samples.jsonl lists 0 samples of 'val' and manifest.json counts 1",
        ),
        (
            lambda split: split["samples_per_class"].reverse() or split["samples_per_class"].__setitem__(0, 8),
            "counts 24",
        ),
        (lambda split: split["formats"].update(tar=[]), "as 'tar', known are"),
        (lambda split: split["formats"]["raw"][0].update(name="../val.npy"), "is not a file beside it"),
        (lambda split: split["formats"]["shards"].reverse(), "not each a .tar and its .idx"),
    ],
    ids=["bad", "counts", "format", "outside", "order"],
)
def test_a_manifest_that_does_not_fit_is_found(folder, change, told):
    edit_manifest(folder, lambda manifest: change(manifest["splits"]["val"]))
    assert any(told in one for one in findings(folder))


def test_bad_samples_that_were_left_out_are_no_finding_and_are_counted(image_folder, tmp_path):
    source = shutil.copytree(image_folder, tmp_path / "in")
    (source / "val" / "bee" / "000.jpg").write_bytes(b"no image")
    pack(listed(source), tmp_path / "out", PackSettings(formats=ALL), 0, Rules(skip_bad=True, most_bad=9))
    assert findings(tmp_path / "out") == []
    (tmp_path / "out" / "bad_samples.jsonl").unlink()
    assert "lists 0 samples of 'val'" in only(tmp_path / "out")


def test_what_is_no_packed_folder_is_refused(tmp_path):
    with pytest.raises(FeedrateError, match="has no manifest.json"):
        verify(tmp_path / "nowhere", 0)
    (tmp_path / "packing.partial").mkdir()
    with pytest.raises(FeedrateError, match="never packed to its end"):
        verify(tmp_path, 0)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(FeedrateError, match="not a manifest"):
        verify(tmp_path, 0)


def test_checksums_are_right_and_stop_when_nobody_wants_them(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    with open(large, "wb") as file:
        file.truncate(64 << 30)  # a hole: a minute's work
    with Checksums({small: 3, tmp_path / "none": 5}) as checksums:
        told = checksums.wait(lambda num_samples, num_bytes: None, 10)
    assert told[small] == hashlib.sha256(b"abc").hexdigest()
    assert isinstance(told[tmp_path / "none"], FileNotFoundError)
    with Checksums({large: 64 << 30}) as checksums:
        pass
    assert checksums.num_done(1000) < 1000


def test_an_interrupt_ends_it_and_all_its_processes(tmp_path):
    source = tmp_path / "in" / "train" / "one"
    source.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(source / "000.jpg", quality=95)
    for number in range(1, 60):
        (source / f"{number:03d}.jpg").hardlink_to(source / "000.jpg")
    pack(listed(tmp_path / "in"), tmp_path / "out", PackSettings(Encoding(check="structure")), 0)
    program = (
        f"import signal, sys, time; sys.path.insert(0, {str(REPOSITORY)!r}); from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored, if so by who started these tests\n"
        "from converters.progress import silent_phase; from converters.inspection.verify import verify\n"
        "class Told:\n"
        "    def __enter__(self): return lambda samples, size: print('going', flush=True) or time.sleep(60)\n"
        "    def __exit__(self, *_): pass\n"
        f"verify(Path({str(tmp_path / 'out')!r}), 2, lambda *_: Told())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"going\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)  # ends only when no process holds the pipes any more
    assert process.returncode == -signal.SIGINT and b"KeyboardInterrupt" in errors
