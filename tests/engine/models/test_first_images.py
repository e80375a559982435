"""What a run of cifar_fast starts from, and that it goes on exactly."""

import dataclasses
import itertools
import shutil

import pytest
import torch
from commands import TRAIN, run, short_options, torchrun
from short_runs import ONE_RANK, run_to_end, short_config

from engine.augment import Normalize
from engine.config import ModelConfig
from engine.data import open_data
from engine.model import start_model
from engine.models import first_images
from engine.models.cifar_fast import CifarFast, patch_moments, whitening_filters

_FAST = {"model": ModelConfig("cifar_fast")}


def _start(config, fresh=True):
    data = open_data(config, ONE_RANK, lambda text: None)
    try:
        return start_model(config, data, ONE_RANK, lambda text: None, fresh), data.channels
    finally:
        data.close()


@pytest.mark.parametrize(("enough", "num_batches"), [(5_000, 5), (15, 3), (14, 2)])
def test_the_first_filters_whiten_the_first_batches_of_the_plan(
    enough, num_batches, image_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(first_images, "_ENOUGH_IMAGES", enough)
    config = short_config(image_folder, tmp_path, **_FAST)
    model, channels = _start(config)
    data = open_data(config, ONE_RANK, lambda text: None)
    batches = data.train.epoch(0)
    images = torch.cat([batch.images.clone() for batch in itertools.islice(batches, num_batches)])
    batches.close()
    data.close()
    assert len(images) == 7 * num_batches
    expected = whitening_filters(*patch_moments(Normalize(channels, torch.device("cpu"), False)(images)))
    torch.testing.assert_close(model.whitening.weight[:12], expected)
    assert torch.equal(model.whitening.weight[12:], -model.whitening.weight[:12])
    again, _ = _start(config)
    assert torch.equal(again.whitening.weight, model.whitening.weight)


class _OfTwo:
    """The first of two ranks, whose other has the same images."""

    world_size, is_main, device = 2, True, torch.device("cpu")

    def sum(self, tensor):
        return tensor


@pytest.mark.parametrize(("ranks", "num_batches"), [(ONE_RANK, 4), (_OfTwo(), 2)])
def test_images_of_all_ranks_are_counted(ranks, num_batches, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(first_images, "_ENOUGH_IMAGES", 28)
    seen = []
    monkeypatch.setattr(first_images, "patch_moments", lambda images: seen.append(images) or patch_moments(images))
    config = short_config(image_folder, tmp_path, **_FAST)
    data = open_data(config, ONE_RANK, lambda text: None)
    try:
        first_images.start_from_images(CifarFast(3), data.train, data.channels, ranks)
    finally:
        data.close()
    assert [len(images) for images in seen] == [7] * num_batches


def test_a_run_that_goes_on_leaves_the_filters_to_its_checkpoint(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, **_FAST)
    fresh, _ = _start(config)
    resumed, _ = _start(config, fresh=False)
    assert not torch.equal(fresh.whitening.weight, resumed.whitening.weight)


@pytest.mark.parametrize("freeze", [True, False])
def test_it_trains_and_resumes_to_the_bit_and_frozen_filters_stay(image_folder, tmp_path, freeze):
    model = ModelConfig("cifar_fast", freeze_whitening=freeze)
    config = short_config(image_folder, tmp_path / "whole", model=model)
    expected = run_to_end(config)
    folder = tmp_path / "whole" / "short" / "checkpoints"
    last = torch.load(sorted(folder.glob("*.pt"))[-1], weights_only=True)["model"]["whitening.weight"]
    assert torch.equal(last, _start(config)[0].whitening.weight) == freeze

    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for path in (tmp_path / "again" / "short" / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > 3:
            path.unlink()
    assert run_to_end(again) == expected


def test_two_ranks_start_from_the_same_filters_as_one(image_folder, tmp_path):
    """Frozen filters are in the checkpoint as they were drawn: from the global batch, whoever loaded it."""
    options = short_options(image_folder, tmp_path, **{"model.name": "cifar_fast", "epochs": 1})
    filters = []
    for ranks in (1, 2):
        folder = ["--run.folder", str(tmp_path / f"of{ranks}")]
        result = run(torchrun(ranks, TRAIN, *options, *folder))
        assert result.returncode == 0, result.stderr
        last = sorted((tmp_path / f"of{ranks}" / "ddp" / "checkpoints").glob("*.pt"))[-1]
        filters.append(torch.load(last, weights_only=True)["model"]["whitening.weight"])
    torch.testing.assert_close(filters[0], filters[1], rtol=1e-4, atol=1e-5)
