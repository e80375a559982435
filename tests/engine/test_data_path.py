"""Where data are read from, and what is said where nothing is there."""

import shlex

import pytest

from converters.options import parse
from converters.presets import PRESETS
from engine.command_line import PRESETS as CONFIGS
from engine.command_line import load_preset
from engine.config import DataConfig
from engine.data_path import data_then_and_now, existing_path, packing_command
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
