"""`load_model`: a run's model for people's own scripts, with the scores that the run's own evaluation gives."""

import dataclasses
import shutil

import pytest
import torch
from short_runs import ONE_RANK, run_to_end, short_config

from engine.augment import IMAGENET_CHANNELS
from engine.checkpointing.finished import find_weights, read_finished
from engine.command_line import parse_config
from engine.config import ModelConfig
from engine.optimisation.average import AverageConfig
from engine.scoring import score
from engine.trained_model import load_model
from loaders.errors import FeedrateError


def _trained(image_folder, tmp_path, name, **changes):
    data = dataclasses.replace(
        short_config(image_folder, tmp_path).data, size_px=32, eval_size_px=32, eval_resize_px=37
    )
    settings = {"epochs": 1, "data": data, "model": ModelConfig(name), **changes}
    run_to_end(short_config(image_folder, tmp_path, **settings))
    return tmp_path / "short"


def _same(one, other):
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        return torch.equal(one(images), other(images))


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet20", "cifar_fast", "timm/test_resnet"])
def test_a_model_of_any_name_is_there_again_with_what_it_expects(image_folder, tmp_path, name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    folder = _trained(image_folder, tmp_path, name)
    before = torch.random.get_rng_state()
    model, expected = load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training and {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    checkpoint = max((folder / "checkpoints").glob("step-*.pt"), key=lambda path: int(path.stem[5:]))
    trained = torch.load(checkpoint, weights_only=True)["model"]
    assert all(torch.equal(tensor, trained[of]) for of, tensor in model.state_dict().items())
    assert (expected.classes, expected.size_px) == (("ant", "bee", "cat"), 32)
    assert (expected.resize_px, expected.crop_px) == (37, 32)
    assert expected.mean == tuple(value / 255 for value in IMAGENET_CHANNELS.mean)
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(folder / "weights.safetensors", moved)
    again, as_well = load_model(str(moved))
    assert _same(model, again) and as_well == expected


def test_a_blurred_model_is_blurred_again_wherever_its_file_lies(image_folder, tmp_path):
    folder = _trained(image_folder, tmp_path, "resnet18", model=ModelConfig("resnet18", blur_pool=True))
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(folder / "weights.safetensors", moved)
    models = [load_model(path)[0] for path in (folder, moved)]
    assert all(any("Blurred" in type(module).__name__ for module in model.modules()) for model in models)
    assert _same(*models)
    by_run, by_file = (
        score(parse_config(words), ONE_RANK, read_finished(path), False, lambda text: None).evaluation
        for path, words in (
            (find_weights(folder, "last"), ["--config", str(folder / "config.toml")]),
            (
                moved,
                [
                    *read_finished(moved).options(),
                    *("--data.path", str(image_folder), "--loader", "turbo", "--execution.device", "cpu"),
                ],
            ),
        )
    )
    assert by_run.loss == pytest.approx(by_file.loss, rel=1e-5)
    plain = parse_config(["--config", str(folder / "config.toml"), "--model.no-blur-pool"])
    with pytest.raises(FeedrateError, match="elsewhere.safetensors holds weights of a model that blurs: give --model"):
        score(plain, ONE_RANK, read_finished(moved), False, lambda text: None)


def test_other_weights_of_a_run_are_named_as_for_an_evaluation(image_folder, tmp_path):
    folder = _trained(image_folder, tmp_path, "cifar_resnet20", average=AverageConfig(ema_decay=0.6))
    assert not _same(load_model(folder)[0], load_model(folder, "ema")[0])
    assert _same(load_model(folder / "ema.safetensors")[0], load_model(folder, "ema")[0])


def test_what_does_not_tell_what_it_is_is_one_sentence(tmp_path):
    with pytest.raises(FeedrateError, match="there is no .*nothing: name a run's folder"):
        load_model(tmp_path / "nothing")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "plain.pt")
    with pytest.raises(FeedrateError, match="plain.pt does not tell its model, classes, normalisation and sizes"):
        load_model(tmp_path / "plain.pt")
