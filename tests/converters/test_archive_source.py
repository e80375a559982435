"""ImageNet's own archives, read in place: as torchvision unpacks them, and never taken for whole if they are not."""

import tarfile
from pathlib import Path

import pytest
from imagenet_forms import (
    LENIENT,
    NAMES,
    VAL_WNIDS,
    WNIDS,
    Pictures,
    add_member,
    contents,
    make_pictures,
    open_as,
    refused_source,
    tar_of,
    val_name,
    write_devkit,
    write_official,
)
from torchvision.datasets import ImageFolder, imagenet

from converters.sources.devkit import read_devkit
from loaders.errors import FeedrateError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures()


@pytest.fixture
def root(tmp_path, pictures) -> Path:
    return write_official(tmp_path / "data", pictures)


def test_samples_are_those_that_torchvision_unpacks(root, tmp_path, pictures, monkeypatch):
    splits = open_as(root)
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *args: None)  # these are not the true ones
    unpacked = write_official(tmp_path / "unpacked", pictures)
    imagenet.parse_devkit_archive(unpacked)
    imagenet.parse_train_archive(unpacked)
    imagenet.parse_val_archive(unpacked)
    names, wnids = imagenet.load_meta_file(unpacked)
    assert tuple(", ".join(names[wnid]) for wnid in WNIDS) == splits["val"].class_names
    assert wnids == VAL_WNIDS
    for split, samples in splits.items():
        reference = ImageFolder(unpacked / split)
        assert tuple(reference.classes) == samples.classes
        expected = [(Path(path).name, label, Path(path).read_bytes()) for path, label in reference.samples]
        found = [(Path(name).name, label, data) for name, label, data in contents(samples)]
        assert (found if split == "train" else sorted(found)) == (expected if split == "train" else sorted(expected))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read(root, pictures, format):
    inner = {
        f"./{wnid}.tar": tar_of({f"./{name}": data for name, data in files.items()}, format)
        for wnid, files in pictures.train.items()
    }
    (root / TRAIN).write_bytes(tar_of(inner, format))
    assert contents(open_as(root)["train"]) == pictures.expected_train()


def test_long_names_and_names_that_are_no_utf8_are_read(root, pictures):
    wnid, data = WNIDS[0], pictures.val[0]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        odd = {f"{'x' * 150}.JPEG": data, "\udcff.JPEG": data}
        inner = {f"{each}.tar": tar_of(odd if each == wnid else pictures.train[each], format) for each in WNIDS}
        (root / TRAIN).write_bytes(tar_of(inner, format))
        names = [name for name, label, found in contents(open_as(root)["train"]) if label == 0 and found == data]
        assert names == [f"{wnid}/{'x' * 150}.JPEG", f"{wnid}/\udcff.JPEG"]


def test_either_archive_can_be_alone_and_the_other_is_said_to_be_missing(root):
    (root / VAL).rename(root / "elsewhere")
    splits = open_as(root)
    assert list(splits) == ["train"] and splits["train"].notes["archive_not_there"] == VAL
    (root / TRAIN).unlink()
    (root / "elsewhere").rename(root / VAL)
    assert list(open_as(root)) == ["val"]


def test_one_archive_can_be_named_itself(root, pictures):
    assert contents(open_as(root / TRAIN)["train"]) == pictures.expected_train()
    splits = open_as(root / VAL)
    assert list(splits) == ["val"] and contents(splits["val"]) == pictures.expected_val()


def test_training_needs_no_kit_and_finds_names_beside(root):
    (root / DEVKIT).unlink()
    assert DEVKIT in refused_source(root)
    (root / VAL).unlink()
    samples = open_as(root)["train"]
    assert samples.classes == WNIDS == samples.class_names
    (root / "synset_words.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in NAMES.items()))
    assert open_as(root)["train"].class_names == tuple(NAMES[wnid] for wnid in WNIDS)


def test_an_unpacked_kit_serves_as_well(root, pictures):
    with tarfile.open(root / DEVKIT) as archive:
        archive.extractall(root, filter="data")
    (root / DEVKIT).unlink()
    assert contents(open_as(root)["val"]) == pictures.expected_val()


def test_archives_cut_short_anywhere_are_refused(root):
    for name in (TRAIN, VAL):
        whole = (root / name).read_bytes()
        with tarfile.open(root / name) as archive:
            end = archive.getmembers()[-1]
            end = end.offset_data + -(-end.size // 512) * 512
            first = archive.getmembers()[0]
        # in the first header, in a file, between two files, before the end mark
        for length in (300, first.offset_data + 700, first.offset_data + -(-first.size // 512) * 512, end, end + 200):
            (root / name).write_bytes(whole[:length])
            message = refused_source(root, rules=LENIENT)
            assert str(root / name) in message and "get it again" in message, length
        (root / name).write_bytes(whole)


def test_an_archive_of_a_class_that_was_cut_short_is_refused(root, pictures):
    for length in (700, 512 + len(next(iter(pictures.train[WNIDS[1]].values())))):
        inner = {f"{wnid}.tar": tar_of(files) for wnid, files in pictures.train.items()}
        inner[f"{WNIDS[1]}.tar"] = inner[f"{WNIDS[1]}.tar"][: -(-length // 512) * 512]
        (root / TRAIN).write_bytes(tar_of(inner))
        assert TRAIN in refused_source(root)


def test_a_damaged_header_does_not_end_the_list_early(root):
    content = bytearray((root / VAL).read_bytes())
    with tarfile.open(root / VAL) as archive:
        third = archive.getmembers()[2]
    content[third.offset + 3] ^= 0xFF
    (root / VAL).write_bytes(content)
    with tarfile.open(root / VAL) as archive:
        assert len(archive.getmembers()) == 2  # what Python's tarfile makes of it, without a word
    assert VAL in refused_source(root, rules=LENIENT)


def test_a_compressed_archive_is_refused_with_the_remedy(root):
    import gzip

    (root / TRAIN).write_bytes(gzip.compress((root / TRAIN).read_bytes()))
    assert "decompress" in refused_source(root)


def test_an_archive_of_something_else_is_refused(root, pictures):
    (root / TRAIN).write_bytes(tar_of(pictures.train[WNIDS[0]]))
    assert "n01440764.tar" in refused_source(root)
    (root / TRAIN).write_bytes(tar_of({}))
    assert "n01440764.tar" in refused_source(root)


def test_other_files_are_counted_and_links_are_bad_samples(root, pictures):
    link = tarfile.TarInfo("n01440764_999.JPEG")
    link.type, link.linkname = tarfile.LNKTYPE, "n01440764_3.JPEG"
    with tarfile.open(root / "inner.tar", "w") as archive:
        for name, data in {**pictures.train[WNIDS[0]], "notes.txt": b"x"}.items():
            add_member(archive, name, data)
        archive.addfile(link)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in pictures.train.items()}
    inner[f"{WNIDS[0]}.tar"] = (root / "inner.tar").read_bytes()
    (root / TRAIN).write_bytes(tar_of({**inner, "readme.txt": b"x"}))
    samples = open_as(root, rules=LENIENT)["train"]
    assert contents(samples) == pictures.expected_train()
    assert [bad.name for bad in samples.bad] == [f"{WNIDS[0]}/{link.name}"] and samples.num_ignored == 2
    assert link.name in refused_source(root)


def test_the_kit_and_the_validation_images_must_fit(root, pictures):
    images = {val_name(number): data for number, data in enumerate(pictures.val, 1)}
    (root / VAL).write_bytes(tar_of({**images, val_name(8): pictures.val[0]}))
    assert val_name(8) in refused_source(root, rules=LENIENT)
    (root / VAL).write_bytes(tar_of({**images, "another.JPEG": pictures.val[0]}))
    assert "another.JPEG" in refused_source(root, rules=LENIENT)
    del images[val_name(4)]
    (root / VAL).write_bytes(tar_of(images))
    assert val_name(4) in refused_source(root)
    samples = open_as(root, rules=LENIENT)["val"]
    assert [sample for sample in pictures.expected_val() if sample[0] != val_name(4)] == contents(samples)
    assert [bad.name for bad in samples.bad] == [val_name(4)]


def test_a_damaged_kit_is_refused(root):
    whole = (root / DEVKIT).read_bytes()
    for content in (b"", b"noise", whole[: len(whole) // 2]):
        (root / DEVKIT).write_bytes(content)
        assert str(root / DEVKIT) in refused_source(root)
    (root / DEVKIT).write_bytes(b"")
    with tarfile.open(root / DEVKIT, "w:gz") as archive:
        add_member(archive, "ILSVRC2012_devkit_t12/data/meta.mat", b"noise")
    assert "ground_truth" in refused_source(root)


def test_a_class_number_that_has_children_is_refused(root):
    write_devkit(root, truth=[1, 2, 3, 4, 1, 2, 3])  # 4 is "entity"
    with pytest.raises(FeedrateError, match="class 4"):
        read_devkit(root)
