"""A validation split on request: class by class, the same for the same seed, and no image on both sides."""

from pathlib import Path

import numpy as np
import pytest
from imagenet_forms import (
    LENIENT,
    contents,
    jpeg,
    make_pictures,
    open_as,
    refused_source,
    tar_of,
    write_cifar,
    write_official,
)

from converters.progress import silent_phase
from converters.sources import duplicates
from converters.sources.duplicates import duplicate_groups
from converters.sources.splitting import split_off_val


def write(root: Path, num_per_class: dict[str, int]) -> Path:
    """`root/<class>/<n>.jpg`, all different."""
    seed = 0
    for name, count in num_per_class.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(jpeg(seed))
            seed += 1
    return root


def copy(source: Path, to: Path) -> None:
    to.write_bytes(source.read_bytes())


def names(samples) -> list[str]:
    return [samples.stored(index).name for index in range(len(samples))]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_each_class_gives_its_share(tmp_path, fraction):
    counts = {"a": 40, "b": 10, "c": 2, "d": 1}
    root = write(tmp_path / "data", counts)
    splits = open_as(root, "folder", val_fraction=fraction)
    assert list(splits) == ["train", "val"]
    expected = [min(max(1, int(fraction * n + 0.5)), n - 1) for n in counts.values()]
    assert np.bincount(splits["val"].labels, minlength=4).tolist() == expected
    assert expected[2:] == [1, 0]
    whole = contents(open_as(root, "folder")["train"])
    assert sorted(contents(splits["train"]) + contents(splits["val"])) == whole
    for samples in splits.values():
        assert names(samples) == sorted(names(samples))  # the source's order
        assert samples.classes == ("a", "b", "c", "d")
        assert samples.notes["split"] == {
            "val_fraction": fraction,
            "seed": 0,
            "num_duplicate_groups": 0,
            "num_duplicates": 0,
        }


def test_the_seed_decides_and_nothing_else(tmp_path):
    root = write(tmp_path / "data", {"a": 30, "b": 30})
    chosen = [names(open_as(root, "folder", val_fraction=0.2, seed=seed)["val"]) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    prints = [open_as(root, "folder", val_fraction=0.2, seed=seed)["val"].fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    # golden: another choice would let models be evaluated on what others of this seed were trained with
    assert chosen[0][:3] == ["a/000.jpg", "a/003.jpg", "a/005.jpg"]


@pytest.mark.parametrize("name", ["000 first.jpg", "015 middle.jpg", "zzz last.jpg"])
@pytest.mark.parametrize("seed", range(4))
def test_a_file_more_or_less_leaves_the_others_on_their_sides_but_for_one_at_most(tmp_path, name, seed):
    root = write(tmp_path / "data", {"a": 30, "b": 30})
    before = {side: set(names(of)) for side, of in open_as(root, "folder", val_fraction=0.2, seed=seed).items()}
    (root / "a" / name).write_bytes(jpeg(1000))
    after = {side: set(names(of)) for side, of in open_as(root, "folder", val_fraction=0.2, seed=seed).items()}
    changed = (before["train"] & after["val"]) | (before["val"] & after["train"])
    assert len(changed) <= 1 and all(changed_name.startswith("a/") for changed_name in changed)
    (root / "a" / name).unlink()
    for number in range(10):  # what another class loses changes nothing
        (root / "b" / f"{number:03d}.jpg").unlink()
    left = set(names(open_as(root, "folder", val_fraction=0.2, seed=seed)["val"]))
    assert {n for n in left if n.startswith("a/")} == {n for n in before["val"] if n.startswith("a/")}


def test_the_same_image_is_never_on_both_sides(tmp_path):
    root = write(tmp_path / "data", {"a": 20, "b": 20})
    for number in range(6):
        copy(root / "a" / f"{number:03d}.jpg", root / "a" / f"again {number}.jpg")
        copy(root / "a" / f"{number:03d}.jpg", root / "b" / f"also {number}.jpg")  # under another label, even
    for seed in range(8):
        splits = open_as(root, "folder", val_fraction=0.5, seed=seed)
        train, val = ({data for _, _, data in contents(samples)} for samples in splits.values())
        assert not train & val
        assert splits["val"].notes["split"]["num_duplicate_groups"] == 6
        assert splits["val"].notes["split"]["num_duplicates"] == 12
        assert np.bincount(splits["val"].labels).tolist() == [13, 13]


def test_copies_fall_on_either_side(tmp_path):
    root = write(tmp_path / "data", {"a": 12})
    for number in range(4):
        copy(root / "a" / f"{number:03d}.jpg", root / "a" / f"{number:03d} again.jpg")
    found = [set(names(open_as(root, "folder", val_fraction=0.5, seed=seed)["val"])) for seed in range(20)]
    with_copies = [len([name for name in chosen if "again" in name]) for chosen in found]
    assert min(with_copies) < 2 < max(with_copies)


def test_a_class_of_copies_alone_gives_one_kind_of_them_if_it_has_two(tmp_path):
    root = write(tmp_path / "data", {"a": 2, "b": 1, "c": 10})
    for kind in (0, 1):
        for number in range(3):
            copy(root / "a" / f"00{kind}.jpg", root / "a" / f"copy {kind} {number}.jpg")
    copy(root / "b" / "000.jpg", root / "b" / "001.jpg")
    splits = open_as(root, "folder", val_fraction=0.1)
    assert np.bincount(splits["val"].labels, minlength=3).tolist() == [4, 0, 1]  # "b" has one image only, twice
    assert np.bincount(splits["train"].labels, minlength=3).tolist() == [4, 2, 9]


def test_bad_samples_and_other_files_are_counted_once(tmp_path):
    root = write(tmp_path / "data", {"a": 10})
    (root / "a" / "gone.jpg").symlink_to("nowhere")
    (root / "a" / "notes.txt").touch()
    splits = open_as(root, "folder", val_fraction=0.2, rules=LENIENT)
    assert [len(samples.bad) for samples in splits.values()] == [1, 0]
    assert [samples.num_ignored for samples in splits.values()] == [1, 0]


def test_archives_and_cifar_are_split_as_well(tmp_path):
    pictures = make_pictures()
    root = write_official(tmp_path / "archives", pictures)
    (root / "ILSVRC2012_img_val.tar").unlink()
    splits = open_as(root, val_fraction=0.3)
    assert sorted(contents(splits["train"]) + contents(splits["val"])) == sorted(pictures.expected_train())
    cifar = open_as(write_cifar(tmp_path / "cifar"), "cifar10")["train"]
    splits = split_off_val(cifar, 0.2, 0, silent_phase)
    assert [len(samples) for samples in splits.values()] == [12, 3]


def test_a_source_that_has_a_validation_split_is_refused(tmp_path):
    write(tmp_path / "data" / "train", {"a": 2})
    write(tmp_path / "data" / "val", {"a": 2})
    message = refused_source(tmp_path / "data", "folder", val_fraction=0.1)
    assert "--val-fraction" in message and "'val'" in message


def test_a_source_in_which_nothing_can_be_split_off_is_refused(tmp_path):
    assert "split off" in refused_source(write(tmp_path / "data", {"a": 1, "b": 1}), "folder", val_fraction=0.5)


def test_only_images_of_equal_size_are_read_and_whole_only_where_their_middles_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_PROBE_BYTES", 64)
    base = bytes(range(256)) * 8
    files = {
        "one": base, "same": base,  # copies
        "end": base[:-1] + b"!", "middle": base[:1024] + b"!" + base[1025:],  # as long, and different
        "longer": base + b"!", "unreadable": base,
    }  # fmt: skip
    (tmp_path / "data" / "a").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "data" / "a" / f"{name}.jpg").write_bytes(data)
    samples = open_as(tmp_path / "data", "folder")["train"]
    (tmp_path / "data" / "a" / "unreadable.jpg").unlink()
    read = []
    original = duplicates._part
    monkeypatch.setattr(
        duplicates,
        "_part",
        lambda stored, size, length: read.append((stored.name, length)) or original(stored, size, length),
    )
    found = duplicate_groups(samples, silent_phase)
    assert [[samples.stored(index).name for index in group] for group in found] == [["a/one.jpg", "a/same.jpg"]]
    probed, whole = ({name for name, length in read if length == n} for n in (64, None))
    assert probed == {f"a/{name}.jpg" for name in ("one", "same", "end", "middle", "unreadable")}
    assert whole == {f"a/{name}.jpg" for name in ("one", "same", "end")}


def test_copies_in_different_archives_are_found(tmp_path):
    for shard in range(2):
        files = {
            f"{shard}{n}.{part}": data for n in range(3) for part, data in (("jpg", jpeg(n + shard)), ("cls", b"0"))
        }
        (tmp_path / f"{shard}.tar").write_bytes(tar_of(files))
    samples = open_as(tmp_path, "folder")["train"]
    assert sorted(duplicate_groups(samples, silent_phase)) == [[1, 3], [2, 4]]
