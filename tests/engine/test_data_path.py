"""Where data are read from, and what is said where nothing is there."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from short_runs import ONE_RANK, short_config

sys.path.append(str(Path(__file__).resolve().parent.parent / "loaders"))
from packed_by_hand import change_manifest, samples_of, write_packed

from converters.command import main as convert
from converters.options import parse
from converters.presets import PRESETS
from engine.command_line import PRESETS as CONFIGS
from engine.command_line import load_preset
from engine.config import DataConfig
from engine.data import open_data
from engine.data_path import data_path_to_open, data_then_and_now, existing_path, packing_command, told_of_path
from engine.finders.batch_size import find_batch_size
from engine.profiler.session import open_source
from loaders.errors import FeedrateError
from tools import demo

NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def _told(path, **settings):
    with pytest.raises(FeedrateError) as refused:
        existing_path(DataConfig(path=path, **settings))
    return str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_of_every_preset_what_packs_its_data_is_named(name, tmp_path, monkeypatch):
    """And the command is one: it writes where the preset then looks, as the preset's own header has it."""
    monkeypatch.chdir(tmp_path)
    data = load_preset(name).data
    command = packing_command(data)
    assert _told(data.path) == f"{data.path} does not exist: pack it by '{command}', or give other data by --data.path"
    words = shlex.split(command)
    assert words[:2] == ["python", "tools/convert.py"]
    chosen = parse(words[2:], "")
    assert str(chosen.out) in (data.path, f"{data.path}-packed")
    header = (CONFIGS / f"{name}.toml").read_text().split("\n\n")[0]
    (shown,) = [line.split("convert.py ")[1] for line in header.splitlines() if "convert.py" in line] or [None]
    if shown is None:
        assert name == "demo" and (chosen.num_train, chosen.num_val) == (demo.NUM_TRAIN, demo.NUM_VAL)
        return
    of_header = parse(shlex.split(shown), "")
    assert (of_header.command, of_header.out, of_header.preset) == (chosen.command, chosen.out, chosen.preset)


def test_it_is_named_wherever_the_folder_lies_and_by_whatever_it_is_asked_for():
    for preset in PRESETS:
        told = _told(f"/no/where/imagenet-{preset}/")
        assert f"python tools/convert.py imagenet --preset {preset} --out /no/where/imagenet-{preset}'" in told
    assert "cifar10 --download --out /no/cifar10-packed'" in _told("/no/cifar10")
    assert "cifar100 --download --out /no/cifar100-packed'" in _told("/no/cifar100-packed", prefer_packed=False)
    assert "--out '/no/my disk/imagenet-256'" in packing_command(DataConfig(path="/no/my disk/imagenet-256"))


@pytest.mark.parametrize(
    "data",
    [
        DataConfig(path="no/photos"),
        DataConfig(path="no/imagenet-300"),
        DataConfig(path="no/imagenet", prefer_packed=False),  # packing would not put it there
        DataConfig(path="mine:open@imagenet-256"),
    ],
)
def test_of_other_paths_nothing_is_known_and_who_opens_them_speaks(data):
    assert packing_command(data) is None
    assert existing_path(data) == data.path


def test_what_is_there_is_read(tmp_path):
    (tmp_path / "imagenet-256").mkdir()
    data = DataConfig(path=str(tmp_path / "imagenet-256"))
    assert existing_path(data) == data.path


def test_of_another_path_and_another_normalisation_both_are_told(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[data]\npath = "a"\nnormalize = [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]')
    of_normalize = "The run began with --data.normalize 1 2.5 3 4 5 6, and now it is half"
    half = DataConfig(path="a", normalize="half")
    assert data_then_and_now(file, half) == of_normalize
    assert data_then_and_now(file, DataConfig(path="a", normalize=(1, 2.5, 3, 4, 5, 6))).endswith("and a is read now")
    told = data_then_and_now(file, DataConfig(path="b", normalize="half"))
    assert told == f"The run began with --data.path a, and b is read now. {of_normalize}"
    file.write_text('[data]\npath = "a"')  # of before there was a choice
    assert "--data.normalize" not in data_then_and_now(file, DataConfig(path="b"))
    file.write_text('[data]\npath = "a"\nnormalize = 3')
    assert data_then_and_now(file, half) == "Now a is read"


@pytest.fixture
def pair(image_folder, tmp_path):
    """A folder and what was packed of it, as paths."""
    plain = tmp_path / "pair" / "set"
    shutil.copytree(image_folder, plain)
    splits = {split: samples_of(plain, split) for split in ("train", "val")}
    packed = write_packed(tmp_path / "pair" / "set-packed", splits, ("beton",))
    change_manifest(packed, source={"dataset": "folder", "path": str(plain)})
    return plain, packed


def test_what_a_set_was_packed_from_decides_and_not_its_name(pair, tmp_path):
    plain, packed = pair
    data = DataConfig(path=str(plain))
    assert data_path_to_open(data) == str(packed)
    assert told_of_path(data) == [f"reading {packed}, packed from {plain}"]
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    change_manifest(packed, source={"dataset": "folder", "path": str(other)})
    assert data_path_to_open(data) == existing_path(data) == str(plain)
    told = f"reading {plain}, not {packed}: that was packed from {other} (--data.path {packed} reads it)"
    assert told_of_path(data) == [told]
    config, heard = short_config(plain, tmp_path), {"train": [], "profile": [], "batch size": []}
    open_data(config, ONE_RANK, heard["train"].append).close()
    with open_source(config, ONE_RANK, heard["profile"].append):
        pass
    with pytest.raises(FeedrateError):  # more images than there are
        find_batch_size(config, ONE_RANK, 1 << 40, 1000, heard["batch size"].append)
    assert all(lines[0] == told for lines in heard.values())


def test_a_path_in_the_home_folder_is_one_like_any_other(pair, monkeypatch, tmp_path):
    plain, packed = pair
    monkeypatch.setenv("HOME", str(plain.parent))
    data = DataConfig(path="~/set")
    assert data.path == str(plain) and data_path_to_open(data) == existing_path(data) == str(packed)
    assert told_of_path(data) == [f"reading {packed}, packed from {plain}"]
    assert data_path_to_open(DataConfig(path="~/set", prefer_packed=False)) == str(plain)
    heard = []
    open_data(short_config("~/set", tmp_path, "synthetic"), ONE_RANK, heard.append).close()
    assert not any("does not exist" in line for line in heard)
    for path in ("~nobody-is-called-so/set", "data/~/set/", "mine:open@~/set"):  # as they were given
        assert DataConfig(path=path).path == path


def test_a_link_to_the_source_is_the_source(pair, tmp_path):
    plain, packed = pair
    (tmp_path / "link").symlink_to(plain)
    (tmp_path / "link-packed").symlink_to(packed)
    data = DataConfig(path=f"{tmp_path / 'link'}/")
    assert data_path_to_open(data) == f"{tmp_path / 'link'}-packed"


def test_of_a_pair_that_was_moved_the_name_decides_and_what_it_was_is_said(pair, tmp_path):
    plain, _ = pair
    moved = (tmp_path / "pair").rename(tmp_path / "moved")
    data = DataConfig(path=str(moved / "set"))
    assert data_path_to_open(data) == str(moved / "set-packed")
    assert told_of_path(data) == [f"reading {moved / 'set'}-packed, packed from what was {plain}"]


def test_where_there_is_no_folder_its_packed_set_is_read_whatever_it_was_packed_from(pair, tmp_path):
    """As where the presets' command for Imagenette packs `imagenette2-160` into `imagenette-packed`."""
    plain, packed = pair
    shutil.move(packed, tmp_path / "pair" / "short-packed")
    data = DataConfig(path=str(tmp_path / "pair" / "short"))
    assert data_path_to_open(data) == f"{data.path}-packed"
    assert told_of_path(data) == [f"reading {data.path}-packed, packed from {plain}"]


@pytest.mark.parametrize("source", [{}, {"path": 3}])
def test_where_the_manifest_names_no_source_the_name_decides_and_that_is_said(pair, source):
    plain, packed = pair
    change_manifest(packed, source=source)
    assert data_path_to_open(DataConfig(path=str(plain))) == str(packed)
    (told,) = told_of_path(DataConfig(path=str(plain)))
    assert "as its name says" in told


def test_classes_that_came_or_went_since_packing_are_warned_of(pair):
    plain, packed = pair
    data = DataConfig(path=str(plain))
    shutil.copytree(plain / "train" / "ant", plain / "train" / "dog")
    (plain / "train" / "bee").rename(plain / "train" / "eel")
    said, warning = told_of_path(data)
    assert said == f"reading {packed}, packed from {plain}" and data_path_to_open(data) == str(packed)
    assert warning.startswith("warning: ") and "\n" not in warning
    assert f"{plain} alone has 'dog', 'eel' and {packed} alone has 'bee'" in warning
    assert f"convert.py folder --source {plain} --out {packed} --overwrite" in warning
    assert "--data.no-prefer-packed" in warning
    assert told_of_path(DataConfig(path=str(plain), prefer_packed=False)) == []


def test_a_source_that_is_no_class_folders_is_not_compared_by_them(pair):
    plain, _ = pair
    shutil.rmtree(plain)
    (plain / "ILSVRC" / "Data" / "CLS-LOC" / "train").mkdir(parents=True)
    assert len(told_of_path(DataConfig(path=str(plain)))) == 1
    shutil.rmtree(plain)
    (plain / "train").mkdir(parents=True)  # shards, say
    assert len(told_of_path(DataConfig(path=str(plain)))) == 1


def test_the_converters_note_what_is_compared(pair, capsys):
    plain, packed = pair
    shutil.rmtree(packed)
    assert convert(["folder", "--source", str(plain), "--out", str(packed), "--workers", "1"], "", None) == 0
    assert told_of_path(DataConfig(path=str(plain))) == [f"reading {packed}, packed from {plain}"]
    stranger = plain.parent / "stranger"
    shutil.copytree(plain, stranger)
    assert convert(["folder", "--source", str(plain), "--out", f"{stranger}-packed", "--workers", "1"], "", None) == 0
    assert data_path_to_open(DataConfig(path=str(stranger))) == str(stranger)
    capsys.readouterr()
