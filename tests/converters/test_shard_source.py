"""WebDataset shards as a source: what the package `webdataset` reads from them, from places in the .tar files."""

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import webdataset
from imagenet_forms import (
    LENIENT,
    NAMES,
    WNIDS,
    add_member,
    contents,
    jpeg,
    make_pictures,
    open_as,
    refused_source,
    tar_of,
    write_shards,
)

from converters import command


@pytest.fixture
def root(tmp_path) -> Path:
    return write_shards(tmp_path / "data", make_pictures())


def shard(root: Path, name: str = "a.tar", **files: bytes) -> Path:
    """A shard with these members; "__" in a name stands for a dot."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(tar_of({key.replace("__", "."): data for key, data in files.items()}))
    return root


def test_samples_are_those_that_the_package_webdataset_reads(root):
    for split, samples in open_as(root).items():
        urls = [str(path) for path in sorted(root.glob(f"*{split}*.tar"))]
        reference = list(webdataset.WebDataset(urls, shardshuffle=False))
        found = contents(samples)
        assert [(data, label) for _, label, data in found] == [(one["jpg"], int(one["cls"])) for one in reference]
        assert [name for name, _, _ in found] == [
            f"{Path(one['__url__']).name}/{one['__key__']}.jpg" for one in reference
        ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"), ["train", "val"]),
        (("train/0.tar", "val/0.tar"), ["train", "val"]),
        (("train/0.tar", "test/0.tar"), ["train", "val"]),
        (("Training/0.tar", "Test/0.tar"), ["train", "val"]),
        (("0.tar", "1.tar"), ["train"]),
        (("trainer-0.tar", "values-1.tar"), ["train"]),
        (("VAL_0.tar",), ["val"]),
    ],
)
def test_splits_are_told_by_words_in_names_and_by_folders(tmp_path, names, splits):
    for number, name in enumerate(names):
        shard(tmp_path / Path(name).parent, Path(name).name, x__jpg=jpeg(number), x__cls=b"0")
    opened = open_as(tmp_path)
    assert list(opened) == splits
    assert [len(samples) for samples in opened.values()] == [len(names) // len(splits)] * len(splits)


def test_a_second_validation_split_is_left_out_and_noted(root):
    shard(root, "im-test-0.tar", x__jpg=jpeg(0))
    splits = open_as(root)
    assert len(splits["val"]) == 7 and splits["train"].notes["left_out"] == ["im-test-0.tar"]


def test_labels_come_from_cls_or_json(tmp_path):
    shard(
        tmp_path,
        a__jpg=jpeg(0), a__cls=b"2\n",
        b__PNG=jpeg(1), b__json=b'{"label": 1, "text": "x"}',
        c__json=b'{"cls": 3}', c__webp=jpeg(2), c__txt=b"a text",
        d__cls=b"0", d__json=b'{"label": 9}', d__jpeg=jpeg(3),
    )  # fmt: skip
    samples = open_as(tmp_path)["train"]
    assert samples.labels.tolist() == [2, 1, 3, 0] and samples.classes == ("0", "1", "2", "3")
    assert [data for _, _, data in contents(samples)] == [jpeg(n) for n in range(4)]


def test_samples_are_grouped_by_the_name_up_to_its_first_dot(tmp_path):
    shard(tmp_path, **{"./d.ir/a.x__jpg": jpeg(0), "d.ir/a__cls": b"0", "d.ir/a__jpg": jpeg(1)})
    (found,) = contents(open_as(tmp_path)["train"])
    assert found == ("a.tar/d.ir/a.jpg", 0, jpeg(1))


def test_what_is_no_sample_is_counted(tmp_path):
    files = {"readme": b"x", "__meta__/about.jpg": b"x", ".hidden.jpg": b"x", "a.jpg": jpeg(0), "a.cls": b"0"}
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    samples = open_as(tmp_path)["train"]
    assert len(samples) == 1 and samples.num_ignored == 3 and not samples.bad


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"x__jpg": b"x"}, "no label"),
        ({"x__cls": b"0", "x__txt": b"x"}, "no image, only cls, txt"),
        ({"x__jpg": b"x", "x__cls": b"-1"}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"0.5"}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"cat\ndog"}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"\xff\xfecat"}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"a" * 256}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"1" * 5000}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b""}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"1" * 9}, ".cls holds no label"),
        ({"x__jpg": b"x", "x__cls": b"1" * (2 << 20)}, "too many for a label"),
        ({"x__jpg": b"x", "x__json": b'{"label": true}'}, ".json holds no label"),
        (
            {"x__jpg": b"x", "x__json": b'{"label": "-1"}'},
            '.json holds no label (\'{"label": "-1"}\'), which is a whole',
        ),
        ({"x__jpg": b"x", "x__json": b'{"label": "\\ud800cat"}'}, ".json holds no label"),
        ({"x__jpg": b"x", "x__json": b"[1]"}, ".json holds no label"),
        ({"x__jpg": b"x", "x__json": b"[" * 100_000}, ".json holds no label"),
        ({"x__jpg": b"x", "x__json": b"{"}, ".json holds no label"),
    ],
)
def test_a_sample_without_image_or_label_is_a_bad_one(tmp_path, files, reason):
    shard(tmp_path, **files, y__jpg=jpeg(0), y__cls=b"0")
    message = refused_source(tmp_path)
    assert reason in message and str(tmp_path / "a.tar") in message
    samples = open_as(tmp_path, rules=LENIENT)["train"]
    assert [bad.name.startswith("a.tar/x") for bad in samples.bad] == [True] and len(samples) == 1


def test_where_all_samples_are_skipped_the_reason_of_the_first_is_told(tmp_path):
    shard(tmp_path, x__jpg=jpeg(0), y__jpg=jpeg(1))
    message = refused_source(tmp_path, rules=LENIENT)
    assert f"none of the 2 images in the 'train' split of {tmp_path} can be used" in message
    assert f"{tmp_path / 'a.tar'}, x.jpg, since it has no label (.cls or .json)" in message


def test_a_link_is_a_bad_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add_member(archive, "a.jpg", jpeg(0))
        add_member(archive, "a.cls", b"0")
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        archive.addfile(link)
        add_member(archive, "b.cls", b"0")
    assert "it is a link inside the shard" in refused_source(tmp_path)
    assert len(open_as(tmp_path, rules=LENIENT)["train"]) == 1


def test_names_that_stand_twice_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.jpg", "a.jpg", "a.cls"):
            add_member(archive, name, b"0")
    assert "a.jpg twice" in refused_source(tmp_path, rules=LENIENT)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg", "a.cls"):
            add_member(archive, name, b"0")
    assert "'a' in two places" in refused_source(tmp_path, rules=LENIENT)


def test_damaged_and_compressed_shards_are_refused(root):
    path = next(root.glob("*.tar"))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    for length in (100, 2000, last.offset, last.offset_data + 512):
        path.write_bytes(whole[:length])
        assert str(path) in refused_source(root, rules=LENIENT)
    path.write_bytes(gzip.compress(whole))
    assert "decompress" in refused_source(root)
    path.rename(path.with_suffix(".tar.gz"))
    assert "decompress" in refused_source(root)
    assert "decompress" in refused_source(path.with_suffix(".tar.gz"))


def test_what_stands_behind_an_end_mark_is_not_lost_without_a_word(tmp_path):
    first, second = (tar_of({f"{key}.jpg": jpeg(0), f"{key}.cls": b"0"}) for key in "ab")
    path = tmp_path / "a.tar"
    path.write_bytes(first + second)
    assert f"{path} goes on behind its end mark, with b.jpg" in refused_source(tmp_path, rules=LENIENT)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        second_header = archive.getmember("a.cls").offset
    path.write_bytes(bytes(512) + first[:second_header])
    assert "with a.jpg" in refused_source(tmp_path, rules=LENIENT)
    path.write_bytes(first + bytes(3 << 20) + b"\x01" * 700)  # padding, and noise that is no header
    assert len(open_as(tmp_path)["train"]) == 1


def test_a_sparse_member_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = 1024
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"}
        archive.addfile(member, io.BytesIO(b"1\n0\n512\n".ljust(1024, b"\0")))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert "as a sparse file" in refused_source(tmp_path)


def test_class_names_come_from_a_list_beside(root):
    assert open_as(root)["val"].classes == WNIDS
    (root / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in NAMES.items()))
    assert open_as(root)["val"].class_names == tuple(NAMES[wnid] for wnid in WNIDS)
    (root / "classes.txt").unlink()
    for content in (list("abc"), {"0": "a", "1": "b", "2": "c"}):
        (root / "classes.json").write_text(json.dumps(content))
        assert open_as(root)["train"].classes == ("a", "b", "c")
    (root / "classes.json").unlink()
    splits = open_as(root)
    assert splits["train"].classes == splits["val"].classes == ("0", "1", "2")


def test_labels_of_both_splits_together_make_the_classes(tmp_path):
    shard(tmp_path, "train-0.tar", a__jpg=jpeg(0), a__cls=b"1")
    shard(tmp_path, "val-0.tar", a__jpg=jpeg(0), a__cls=b"4")
    assert [samples.classes for samples in open_as(tmp_path).values()] == [("0", "1", "2", "3", "4")] * 2


def test_classes_without_names_stand_in_the_order_of_numbers_unlike_folders_of_these_names(tmp_path):
    """As docs/packing.md says; labels are those in the shards."""
    files = {f"{n}__{part}": data for n in range(12) for part, data in (("jpg", jpeg(n)), ("cls", b"%d" % n))}
    samples = open_as(shard(tmp_path / "shards", **files), "folder")["train"]
    assert samples.labels.tolist() == list(range(12)) and samples.classes == tuple(map(str, range(12)))
    for n in range(12):
        (tmp_path / "folders" / str(n)).mkdir(parents=True)
        (tmp_path / "folders" / str(n) / "0.jpg").write_bytes(jpeg(n))
    assert open_as(tmp_path / "folders", "folder")["train"].classes[:4] == ("0", "1", "10", "11")


def test_labels_may_be_the_names_of_classes_which_then_stand_in_the_order_of_names(tmp_path):
    shard(tmp_path, "train-0.tar", a__jpg=jpeg(0), a__cls=b"zebra\n", b__jpg=jpeg(1), b__cls=b"kit fox")
    shard(
        tmp_path, "train-1.tar", c__jpg=jpeg(2), c__json='{"label": "Ärger"}'.encode(), d__jpg=jpeg(3), d__cls=b"zebra"
    )
    shard(tmp_path, "val-0.tar", e__jpg=jpeg(4), e__json=b'{"cls": "kit fox"}', f__jpg=jpeg(5), f__cls=b"3d printer")
    splits = open_as(tmp_path, "folder")
    classes = ("3d printer", "kit fox", "zebra", "Ärger")
    assert [samples.classes for samples in splits.values()] == [classes] * 2
    assert [classes[label] for label in splits["train"].labels] == ["zebra", "kit fox", "Ärger", "zebra"]
    assert [classes[label] for label in splits["val"].labels] == ["kit fox", "3d printer"]
    assert [samples.class_names for samples in splits.values()] == [classes] * 2


def test_names_of_classes_go_by_a_list_beside_them(tmp_path):
    wnids = [wnid.encode() for wnid in WNIDS]
    shard(tmp_path, a__jpg=jpeg(0), a__cls=wnids[1], b__jpg=jpeg(1), b__cls=wnids[0])
    (tmp_path / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in NAMES.items()))
    samples = open_as(tmp_path)["train"]
    assert samples.classes == WNIDS[:2] and samples.labels.tolist() == [1, 0]
    assert samples.class_names == tuple(NAMES[wnid] for wnid in WNIDS[:2])
    (tmp_path / "classes.txt").write_text(f"{WNIDS[1]}\nunseen\n{WNIDS[0]}\n")
    samples = open_as(tmp_path)["train"]
    assert samples.classes == (WNIDS[1], "unseen", WNIDS[0]) and samples.labels.tolist() == [0, 2]
    (tmp_path / "classes.txt").write_text(f"{WNIDS[1]}\n")
    assert f"{tmp_path / 'classes.txt'} does not name the class '{WNIDS[0]}'" in refused_source(tmp_path)


@pytest.mark.parametrize("labels", [(b"7", b"cat"), (b"cat", b"7")])
@pytest.mark.parametrize("shards", [("train-0.tar", "val-0.tar"), ("train-0.tar", "train-1.tar")])
def test_a_name_among_numbers_is_a_bad_sample_and_a_number_among_names(tmp_path, labels, shards):
    for name, label in zip(shards, labels, strict=True):
        shard(tmp_path, name, x__jpg=jpeg(0), x__cls=label, y__jpg=jpeg(0), y__cls=labels[0])
    first, second = (repr(label.decode()).replace("'7'", "7") for label in labels)
    says = f"labels are all numbers or all names: its own is {second}, and the first, of {tmp_path / shards[0]}, x.cls,"
    assert f"{says} is {first}" in refused_source(tmp_path)
    opened = open_as(tmp_path, rules=LENIENT)
    assert sum(len(samples.bad) for samples in opened.values()) == 1
    assert sum(len(samples) for samples in opened.values()) == 3


def test_a_class_that_only_evaluation_has_is_said(tmp_path, capsys):
    """As by a slip in the labels of one split, which folders' names do not allow."""
    for split, labels in {"train": (b"cat", b"dog"), "val": (b"Cat", b"dog")}.items():
        shard(tmp_path / "in", f"{split}-0.tar", x__jpg=jpeg(0), x__cls=labels[0], y__jpg=jpeg(1), y__cls=labels[1])
    words = ["folder", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert command.main(words, "", lambda *what: None) == 0
    assert "warning: 'train' has no sample of 1 classes: 'Cat'\n" in capsys.readouterr().out


def test_a_number_may_be_written_as_text_and_names_in_a_list_may_have_spaces_around_them(tmp_path):
    shard(tmp_path, x__jpg=jpeg(0), x__json=b'{"label": "1"}', y__jpg=jpeg(0), y__cls=b"0")
    assert open_as(tmp_path)["train"].labels.tolist() == [1, 0]
    shard(tmp_path, x__jpg=jpeg(0), x__cls=b"dog ", y__jpg=jpeg(0), y__cls=b"cat")
    (tmp_path / "classes.json").write_text('["dog ", "cat"]')
    assert open_as(tmp_path)["train"].classes == ("dog", "cat")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "a\n\nb\nc\n"),
        ("classes.txt", "a\na\nb\n"),
        ("classes.txt", "a\nb\n"),
        ("classes.json", "{"),
        ("classes.json", "3"),
        ("classes.json", '{"a": 0, "b": 1, "c": 2}'),
        ("classes.json", '["a", "b", 3]'),
    ],
)
def test_a_list_of_classes_that_makes_no_sense_is_refused(root, name, text):
    (root / "classes.txt").unlink()
    (root / name).write_text(text)
    assert str(root / name) in refused_source(root)


def test_shards_beside_class_folders_are_not_guessed_at(root):
    (root / "train" / "ant").mkdir(parents=True)
    assert len(open_as(root)["train"]) == 11
    (root / "train" / "ant" / "0.jpg").write_bytes(jpeg(0))
    assert "both" in refused_source(root)
    shutil.rmtree(root / "train")
    (root / "ant").mkdir()
    (root / "ant" / "0.jpg").write_bytes(jpeg(0))
    assert "both" in refused_source(root)


def test_hidden_images_in_a_folder_beside_shards_make_no_class_folder_of_it(root):
    (root / "papers").mkdir()
    (root / "papers" / "._a.jpg").write_bytes(b"macOS leaves it")
    assert list(open_as(root)) == ["train", "val"]


def test_one_shard_can_be_named_itself(root):
    path = sorted(root.glob("*val*.tar"))[0]
    (samples,) = open_as(path).values()
    assert len(samples) == 5 and samples.classes == WNIDS
