"""Evaluation counts every image once, and the counts are the same integers however the work is shared."""

import numpy as np
import pytest
import torch
from short_runs import ONE_RANK
from torch import nn

from engine.augment import IMAGENET_CHANNELS, Normalize
from engine.evaluate import evaluate
from engine.step import Precision
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.plan import Plan, Sequential, Shard, View
from loaders.records import open_records

NORMALIZE = Normalize(IMAGENET_CHANNELS, torch.device("cpu"), channels_last=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def _evaluate(model, images, batch_size, rank=0, world_size=1):
    records = open_records(images, "val")
    plan = Plan(records.widths, records.heights, Sequential(batch_size), View(CenterCrop(16, 18), 16))
    loader = open_loader("turbo", records, plan, LoaderOptions(shard=Shard(rank, world_size), num_workers=1))
    try:
        # each share is evaluated as if alone, and the counts are added by the test
        return evaluate(model, loader, NORMALIZE, Precision("fp32", torch.device("cpu")), ONE_RANK)
    finally:
        loader.close()


def _shares(model, images, batch_size, world_size):
    records = open_records(images, "val")
    plan = Plan(records.widths, records.heights, Sequential(batch_size), View(CenterCrop(16, 18), 16))
    filled = [rank for rank in range(world_size) if rank * batch_size < len(records)]
    assert plan.num_batches(world_size) >= 1
    return [_evaluate(model, images, batch_size, rank, world_size) for rank in filled]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_counts_are_those_of_a_plain_loop_over_single_images(model, image_folder, batch_size):
    records = open_records(image_folder, "val")
    plan = Plan(records.widths, records.heights, Sequential(1), View(CenterCrop(16, 18), 16))
    loader = open_loader("turbo", records, plan, LoaderOptions(num_workers=1))
    model.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for batch in loader.epoch(0):
            logits = model(NORMALIZE(batch.images))
            right += int(logits.argmax() == batch.labels[0])
            loss += nn.functional.cross_entropy(logits, batch.labels).item()
    loader.close()
    result = _evaluate(model, image_folder, batch_size)
    assert (result.num_samples, result.num_top1, result.num_top5) == (23, right, 23)
    assert result.loss == pytest.approx(loss / 23, rel=1e-5)


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_any_number_of_ranks_counts_the_same_integers_and_the_same_loss(model, image_folder, batch_size, world_size):
    whole = _evaluate(model, image_folder, batch_size)
    shares = _shares(model, image_folder, batch_size, world_size)
    assert sum(share.num_samples for share in shares) == whole.num_samples == 23
    assert sum(share.num_top1 for share in shares) == whole.num_top1
    total = sum(share.loss * share.num_samples for share in shares) / 23
    assert total == pytest.approx(whole.loss, rel=1e-12)


def test_evaluating_leaves_the_model_as_it_was(model, image_folder):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _evaluate(model, image_folder, 8)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_top5_of_fewer_than_five_classes_is_always_right_and_more_is_counted():
    class Fixed(nn.Module):
        def forward(self, images):
            return torch.arange(10.0).repeat(len(images), 1)  # class 9 first, class 5 fifth

    class Loader:
        def epoch(self, index, start=0):
            from loaders.api import Batch

            labels = torch.tensor([9, 5, 4, 0, -1, -1])
            yield Batch(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), labels, torch.arange(6), 4)

    result = evaluate(Fixed(), Loader(), NORMALIZE, Precision("fp32", torch.device("cpu")), ONE_RANK)
    assert (result.num_samples, result.num_top1, result.num_top5) == (4, 1, 2)
    assert (result.top1, result.top5) == (0.25, 0.5)
    expected = nn.functional.cross_entropy(torch.arange(10.0).repeat(4, 1), torch.tensor([9, 5, 4, 0])).item()
    assert np.isclose(result.loss, expected)
