"""Every form in which people have ImageNet gives the same samples; what cannot be used is refused in one sentence."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from imagenet_forms import (
    FORMS,
    LENIENT,
    NAMES,
    WNIDS,
    Pictures,
    contents,
    make_pictures,
    open_as,
    refused_source,
    write_cifar,
    write_class_folders,
    write_kaggle,
    write_official,
)

from converters.samples import WHOLE_FILE
from converters.sources.opening import SourceOptions, check_apart, open_source
from converters.split_pass import Rules
from loaders.errors import FeedrateError


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures()


@pytest.fixture(scope="module", params=FORMS)
def source(request, pictures, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("source") / "data"
    root.mkdir()
    return FORMS[request.param](root, pictures)


def without_place(found: list[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    """Samples by the stem of their names, in an order that all forms have."""
    return sorted((Path(name).stem, label, data) for name, label, data in found)


def test_all_forms_give_the_same_labels_and_bytes(source, pictures):
    splits = open_as(source)
    assert list(splits) == ["train", "val"]
    for split, expected in (("train", pictures.expected_train()), ("val", pictures.expected_val())):
        samples = splits[split]
        assert samples.classes == WNIDS
        assert without_place(contents(samples)) == without_place(expected)
        assert (samples.labels.dtype, samples.num_bytes.dtype) == (np.int64, np.int64)
        assert len(samples) == len(expected) and not samples.bad and samples.num_ignored == 0


def test_the_training_order_is_torchvisions_in_all_forms(source, pictures):
    found = contents(open_as(source)["train"])
    assert [(label, data) for _, label, data in found] == [
        (label, data) for _, label, data in pictures.expected_train()
    ]


def test_names_are_unique_and_do_not_depend_on_where_the_source_lies(source, tmp_path):
    moved = Path(shutil.copytree(source, tmp_path / "moved", symlinks=True))
    for here, there in zip(open_as(source).values(), open_as(moved).values(), strict=True):
        names = [here.stored(index).name for index in range(len(here))]
        assert len(set(names)) == len(names)
        assert names == [there.stored(index).name for index in range(len(there))]
        assert here.fingerprint() == there.fingerprint()  # copytree keeps the times of change


def test_nothing_is_unpacked_or_written(source):
    before = sorted(source.rglob("*"))
    for samples in open_as(source).values():
        contents(samples)
    assert sorted(source.rglob("*")) == before


def test_a_changed_source_has_another_fingerprint(source, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    before = open_as(copy)["train"].fingerprint()
    sample = open_as(copy)["train"].stored(4)
    changed = Path(sample.path)
    content = bytearray(changed.read_bytes())
    content[max(0, sample.position) + 40] ^= 1  # the size stays
    changed.write_bytes(content)
    assert open_as(copy)["train"].fingerprint() != before


def test_places_are_files_or_ranges_of_archives(pictures, tmp_path):
    folders = open_as(write_class_folders(tmp_path / "a", pictures))["train"].stored(0)
    assert folders.num_bytes == WHOLE_FILE and folders.path.endswith(folders.name)
    archive = open_as(write_official(tmp_path / "b", pictures))["train"].stored(0)
    assert archive.path.endswith("ILSVRC2012_img_train.tar") and archive.position % tarfile.BLOCKSIZE == 0
    assert str(archive.position) in archive.where().replace(",", "")


def test_names_for_people_are_the_kits_kaggles_or_those_of_a_list_beside(pictures, tmp_path):
    expected = tuple(NAMES[wnid] for wnid in WNIDS)
    assert open_as(write_official(tmp_path / "official", pictures))["val"].class_names == expected
    assert open_as(write_kaggle(tmp_path / "kaggle", pictures))["val"].class_names == expected
    root = write_class_folders(tmp_path / "folders" / "data", pictures)
    assert open_as(root)["train"].class_names == WNIDS
    lists = {
        root / "words.txt": "".join(f"{wnid}\t{name}\n" for wnid, name in NAMES.items()),
        root.parent / "synset_words.txt": "".join(f"{wnid} {name}\n" for wnid, name in NAMES.items()),
        root.parent / "imagenet_class_index.json": '{"0": ["n01440764", "tench"], "2": ["n02119789", "kit_fox"]}',
    }
    for path, text in lists.items():
        path.write_text(text)
        names = open_as(root)["train"].class_names
        assert names == (("tench", WNIDS[1], "kit_fox") if path.suffix == ".json" else expected)
        path.write_text("neither\n")
        assert str(path) in refused_source(root)
        path.unlink()


def test_classes_of_other_names_are_their_own_names(image_folder, tmp_path):
    root = Path(shutil.copytree(image_folder, tmp_path / "data"))
    (root / "words.txt").write_text("words of another kind, which are nobody's business\n")
    assert open_as(root, "folder")["train"].class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("imagenet", ("ILSVRC/", "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz", "train/<class>/")),
        ("cifar10", ("cifar-10-python.tar.gz",)),
        ("cifar100", ("cifar-100-python.tar.gz",)),
        ("folder", ("train/<class>/",)),
        ("synthetic", ("--out",)),
    ],
)
def test_a_path_with_nothing_says_how_to_get_the_data(tmp_path, dataset, words):
    for path in (tmp_path / "nowhere", tmp_path):
        message = refused_source(path, dataset)
        assert str(path) in message
        for word in words:
            assert word in message


def test_another_data_set_than_asked_for_is_refused(tmp_path, pictures):
    write_cifar(tmp_path / "cifar")
    assert "convert.py cifar10" in refused_source(tmp_path / "cifar", "cifar100")
    assert "CIFAR-10" in refused_source(tmp_path / "cifar", "imagenet")
    assert len(open_as(tmp_path / "cifar", "folder")["train"]) == 15
    for write in (write_official, write_kaggle):
        root = write(tmp_path / write.__name__, pictures)
        assert "convert.py imagenet" in refused_source(root, "cifar10")


def test_splits_that_differ_in_their_classes_are_refused(tmp_path, pictures):
    root = write_official(tmp_path, pictures)
    smaller = {wnid: files for wnid, files in pictures.train.items() if wnid != WNIDS[0]}
    write_official(root, Pictures(smaller, pictures.val))
    assert WNIDS[0] in refused_source(root)


def test_an_empty_split_is_refused(tmp_path, pictures):
    root = write_class_folders(tmp_path / "data", pictures)
    links = sorted((root / "val").rglob("*.JPEG"))
    for path in links:
        path.unlink()
        path.symlink_to("nowhere")
    message = refused_source(root, rules=LENIENT)
    assert f"none of the {len(links)} images in the 'val' split of {root} can be used" in message
    assert f"the first, {links[0]}, since it is a link to nothing" in message


def test_bad_samples_end_it_unless_they_are_skipped(tmp_path, pictures):
    root = write_class_folders(tmp_path / "data", pictures)
    links = [root / "train" / WNIDS[0] / name for name in ("a.jpg", "b.png")]
    for link in links:
        link.symlink_to("nowhere")
    message = refused_source(root)
    assert str(links[0]) in message and "1 more" in message and "--on-bad skip" in message
    assert "more than 1 bad samples" in refused_source(root, rules=Rules(skip_bad=True, most_bad=1))
    samples = open_as(root, rules=LENIENT)["train"]
    assert [(bad.name, bad.where) for bad in samples.bad] == [(f"{WNIDS[0]}/{link.name}", str(link)) for link in links]
    assert [bad.reason for bad in samples.bad] == ["it is a link to nothing"] * 2
    assert contents(samples) == pictures.expected_train()


@pytest.mark.parametrize("options", [{"val_fraction": 0.0}, {"val_fraction": 1.0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(FeedrateError, match="give"):
        SourceOptions(**options)


def test_every_split_tells_its_progress(source):
    told: dict[str, int] = {}

    class Told:
        def __init__(self, label: str, total: int) -> None:
            self.label = label

        def __enter__(self):
            def advance(num_samples: int, num_bytes: int) -> None:
                told[self.label] = told.get(self.label, 0) + num_samples

            return advance

        def __exit__(self, *ended: object) -> None:
            pass

    splits = open_source("imagenet", source, SourceOptions(), Told)
    assert told == {f"list {split}": len(samples) for split, samples in splits.items()}


def test_packing_into_the_source_is_refused(tmp_path):
    check_apart(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FeedrateError, match="lies inside"):
        check_apart(tmp_path / "a", tmp_path / "a" / "b")


def test_packing_a_set_over_itself_is_refused_as_that(tmp_path):
    (tmp_path / "b").mkdir()
    for out in (tmp_path / "a", tmp_path / "b" / ".." / "a"):
        with pytest.raises(FeedrateError, match=f"{out} is the source itself.*: give another --out"):
            check_apart(tmp_path / "a", out)


@pytest.mark.parametrize("name", ["train.beton", "val-000000.tar", "packing.partial/train.beton", "link.beton"])
def test_a_source_that_packing_would_replace_is_refused(tmp_path, name):
    """Even without --overwrite, which the refusal of a folder that holds such files proposes."""
    out = tmp_path / "p"
    (out / "packing.partial").mkdir(parents=True)
    (out / "train.beton").write_bytes(b"precious")
    (out / "link.beton").symlink_to("train.beton")
    with pytest.raises(FeedrateError, match=f"replace the source {out / name} itself: give another --out"):
        check_apart(out / name, out)
    with pytest.raises(FeedrateError, match="itself"):
        check_apart(out / ".." / "p" / name, tmp_path / "." / "p")
    check_apart(out / "photos.tar", out)  # nothing of ours is called so
    check_apart(out / "train", out)
    check_apart(out / name, tmp_path / "q")
