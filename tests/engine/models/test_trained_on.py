"""Weights that were trained on other data than those they start on."""

import json
from pathlib import Path

import pytest
import torch
from short_runs import ONE_RANK, run_to_end, short_config

from engine.augment import IMAGENET_CHANNELS
from engine.build import build_run
from engine.channels import channels_of
from engine.checkpointing.weights import save_weights
from engine.command_line import parse_config
from engine.config import ModelConfig
from engine.models.trained_on import warnings_of_data
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics
from loaders.synthetic_records import SyntheticRecords

MEAN, STD = list(IMAGENET_CHANNELS.mean), list(IMAGENET_CHANNELS.std)


def _saved(tmp_path, **about):
    path = tmp_path / "weights.safetensors"
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    save_weights(path, {"weight": torch.zeros(3)}, {"format": "pt", **texts})
    return str(path)


def _warnings(path, classes=("apple", "pear", "tree")):
    return warnings_of_data(path, classes, IMAGENET_CHANNELS)


def test_classes_of_other_names_are_warned_of_by_the_first(tmp_path):
    path = _saved(tmp_path, classes=["apple", "dog", "zed"])
    (warning,) = _warnings(path)
    assert warning.startswith(
        f"warning: {path} was trained on classes of other names: number 1 was 'dog' and is 'pear'"
    )


def test_so_are_the_same_in_another_order(tmp_path):
    (warning,) = _warnings(_saved(tmp_path, classes=["tree", "pear", "apple"]))
    assert "classes in another order: number 0 was 'tree' and is 'apple'" in warning


def test_another_normalisation_is_warned_of_with_both(tmp_path):
    path = _saved(tmp_path, classes=["apple", "pear", "tree"], normalize={"mean": [127.5] * 3, "std": STD})
    assert _warnings(path) == [
        f"warning: {path} was trained on images normalised by mean 127.5 127.5 127.5 and deviation"
        " 58.395 57.12 57.375; here it is mean 123.675 116.28 103.53 and deviation 58.395 57.12 57.375;"
        " --data.normalize 127.5 127.5 127.5 58.395 57.12 57.375 does as there"
    ]


@pytest.mark.parametrize(
    ("mean", "std", "option"),
    [
        ([127.5] * 3, [127.5] * 3, "--data.normalize half"),
        (MEAN, STD, "--data.normalize imagenet"),
        ([120.123456789012, 1, 2], [3, 4, 5], "--data.normalize 120.123457 1 2 3 4 5"),
        ([0.5] * 3, [0.5] * 3, None),  # another program's file, on another scale: the option would refuse it
    ],
)
def test_the_warning_names_the_option_that_normalises_as_there(tmp_path, mean, std, option):
    path = _saved(tmp_path, normalize={"mean": mean, "std": std})
    (warning,) = warnings_of_data(path, ("apple",), ChannelStatistics((1, 2, 3), (4, 5, 6), "others"))
    assert (f"; {option} does as there" in warning) if option else ("--data.normalize" not in warning)
    if option:
        channels = channels_of(SyntheticRecords(1, 1, 8, 8), parse_config(option.split()).data.normalize)
        assert warnings_of_data(path, ("apple",), channels) == [], "with it, nothing is left to warn of"


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"classes": ["apple", "pear", "tree"], "normalize": {"mean": MEAN, "std": STD}},
        {"normalize": {"mean": [value + 0.0049 for value in MEAN], "std": [value - 0.0049 for value in STD]}},
        {"classes": ["cat", "dog"]},  # the classifier is replaced, which is said
        {"classes": "not JSON", "normalize": "[1]"},
        {"classes": {"apple": 0}, "normalize": {"mean": 3, "std": [1, 2, "x"]}},
        {"classes": 3, "normalize": {"mean": [1, 2]}},
    ],
)
def test_nothing_is_said_of_the_same_data_nor_where_the_file_does_not_tell(tmp_path, about):
    assert _warnings(_saved(tmp_path, **about)) == []


def test_a_file_of_torchs_tells_nothing_and_is_not_read_again(tmp_path):
    assert _warnings(str(tmp_path / "absent.pt")) == []


def test_a_run_that_starts_from_weights_of_other_classes_says_so_and_loads_them(image_folder, tmp_path):
    run_to_end(short_config(image_folder, tmp_path / "first"))
    weights = tmp_path / "first" / "short" / "weights.safetensors"
    renamed = tmp_path / "images"
    renamed.mkdir()
    for split in ("train", "val"):
        for number, folder in enumerate(sorted((image_folder / split).iterdir())):
            target = renamed / split / f"other{number}"
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(folder, target_is_directory=True)
    model = ModelConfig("cifar_resnet20", weights=str(weights))
    for images, is_warned_of in ((renamed, True), (image_folder, False)):
        said, display, stop = [], Display(is_main=False), StopRequest()
        display.say = said.append
        config = short_config(images, tmp_path / images.name / "second", model=model)
        try:
            with build_run(config, ONE_RANK, display, stop):
                pass
        finally:
            stop.restore()
        assert f"weights: {weights}; all layers fit" in said
        assert len([line for line in said if "classes of other names: number 0 was" in line]) == is_warned_of


def test_a_file_that_became_unreadable_is_one_sentence(tmp_path):
    path = Path(_saved(tmp_path, classes=["apple"]))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FeedrateError, match=r"weights\.safetensors cannot be read: "):
        _warnings(str(path))
