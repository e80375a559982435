"""What images are normalised by: chosen, told, and part of what a run is."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from short_runs import ONE_RANK, outcome, run_to_end, short_config, start_from

sys.path.append(str(Path(__file__).resolve().parent.parent / "loaders"))
from packed_by_hand import samples_of, write_packed

from engine.augment import IMAGENET_CHANNELS
from engine.channels import channels_of, told_of
from engine.data import open_data
from loaders.errors import FeedrateError
from loaders.records import open_records

NUMBERS = (100.0, 110.5, 90.0, 30.0, 45.0, 77.0)


@pytest.fixture(scope="module")
def packed(image_folder, tmp_path_factory) -> Path:
    """The image folder as .beton, with statistics of its own."""
    splits = {split: samples_of(image_folder, split) for split in ("train", "val")}
    return write_packed(tmp_path_factory.mktemp("packed"), splits, ("beton",))


def _config(path, folder, normalize="auto", **changes):
    config = short_config(path, folder, epochs=1, **changes)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, normalize=normalize))


def _opened(config):
    """(the channels, what was said of them)"""
    said = []
    data = open_data(config, ONE_RANK, said.append)
    data.close()
    return data.channels, [line for line in said if "normalised" in line]


@pytest.mark.parametrize(
    ("normalize", "mean", "told"),
    [
        ("half", (127.5, 127.5, 127.5), "--data.normalize half (127.5 each: 0.5, × 255)"),
        ("imagenet", IMAGENET_CHANNELS.mean, IMAGENET_CHANNELS.source),
        (NUMBERS, NUMBERS[:3], "--data.normalize 100 110.5 90 30 45 77"),
        ("set", (120.5, 115.0, 100.25), "train split of "),
        ("auto", (120.5, 115.0, 100.25), "train split of "),
    ],
)
def test_what_is_chosen_is_used_and_told(packed, tmp_path, normalize, mean, told):
    channels, (line,) = _opened(_config(packed, tmp_path, normalize))
    assert channels.mean == mean and line.startswith(f"normalised by the mean and deviation of {told}")
    if normalize == NUMBERS:
        assert channels.std == NUMBERS[3:]


def test_a_set_without_a_mean_of_its_own_is_refused_with_the_remedy(image_folder, tmp_path, capsys):
    assert _opened(_config(image_folder, tmp_path))[0] == IMAGENET_CHANNELS
    with pytest.raises(FeedrateError) as refused:
        run_to_end(_config(image_folder, tmp_path, "set"))
    assert str(refused.value) == (
        f"--data.normalize is set and {image_folder} holds no mean and deviation of its own: pack it with"
        " tools/convert.py, which finds them, or give --data.normalize imagenet"
    )
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_a_channel_that_is_the_same_everywhere_is_told_of_only_where_it_becomes_0(packed, tmp_path):
    records = open_records(packed, "train")
    constant = dataclasses.replace(records.channels, mean=(77.0, 1.0, 2.0), std=(0.0, 3.0, 4.0))
    records.channels = constant
    assert channels_of(records, "set").std == (1.0, 3.0, 4.0)
    assert any("the red channel" in line for line in told_of(channels_of(records, "set"), records))
    assert len(told_of(channels_of(records, "half"), records)) == 1


def test_the_images_that_a_run_learns_from_are_normalised_so_and_its_weights_tell(packed, tmp_path):
    whole = {name: run_to_end(_config(packed, tmp_path / str(name), name)) for name in ("auto", "set", NUMBERS)}
    assert whole["auto"] == whole["set"], "the set's own, whichever way they are asked for"
    assert whole["auto"]["state_sha256"] != whole[NUMBERS]["state_sha256"]
    with safe_open(tmp_path / str(NUMBERS) / "short" / "weights.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["normalize"])
    assert (told["mean"], told["std"]) == (list(NUMBERS[:3]), list(NUMBERS[3:]))


def test_a_run_is_not_gone_on_with_under_another_normalisation_unless_that_is_accepted(packed, tmp_path):
    run_to_end(_config(packed, tmp_path / "whole", NUMBERS))
    start_from(tmp_path / "whole" / "short", 2, tmp_path / "cut" / "short")
    with pytest.raises(FeedrateError) as refused:
        run_to_end(_config(packed, tmp_path / "cut", "half"))
    told = str(refused.value)
    assert "normalize.mean was [100.0, 110.5, 90.0] and is [127.5, 127.…" in told and "\n" not in told
    assert ". The run began with --data.normalize 100 110.5 90 30 45 77, and now it is half. Start another" in told
    assert "--run.allow-change normalize.mean normalize.std" in told and "data.path" not in told
    assert run_to_end(_config(packed, tmp_path / "cut", NUMBERS)) == outcome(tmp_path / "whole" / "short")
    start_from(tmp_path / "whole" / "short", 2, tmp_path / "changed" / "short")
    changed = _config(packed, tmp_path / "changed", "half")
    run_to_end(dataclasses.replace(changed, run=dataclasses.replace(changed.run, allow_change=("normalize",))))


def test_a_run_from_before_there_was_a_choice_goes_on_to_the_same_bits(image_folder, tmp_path):
    """What a checkpoint is marked with is the numbers alone, as ever, however they were asked for."""
    whole = run_to_end(_config(image_folder, tmp_path / "whole"))
    newest = max((tmp_path / "whole" / "short" / "checkpoints").glob("step-*.pt"))
    identity = torch.load(newest, weights_only=True)["identity"]
    assert identity["normalize"] == {"mean": list(IMAGENET_CHANNELS.mean), "std": list(IMAGENET_CHANNELS.std)}
    assert not any("normal" in key for key in (*identity["config"], *identity["evaluation"]))
    for normalize in ("auto", "imagenet", (*IMAGENET_CHANNELS.mean, *IMAGENET_CHANNELS.std)):
        folder = tmp_path / str(normalize)
        start_from(tmp_path / "whole" / "short", 2, folder / "short")
        settings = folder / "short" / "config.toml"
        settings.write_text(settings.read_text().replace('normalize = "auto"\n', ""))
        assert "normalize" not in settings.read_text()
        assert run_to_end(_config(image_folder, folder, normalize)) == whole
