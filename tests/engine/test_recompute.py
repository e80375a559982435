"""Recomputed activations: fewer are kept, and every bit stays."""

import copy
import dataclasses

import pytest
import torch
from drawn_models import build_model
from short_runs import run_to_end, short_config
from torch import nn

from engine.config import ExecutionConfig
from engine.recompute import recompute_activations
from loaders.errors import FeedrateError


def _saved_bytes(model, images):
    """What forward keeps for backward, outside of what is recomputed; and the loss."""
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(images).square().mean()
    return sum(kept.values()), loss


def _dropping():
    torch.manual_seed(0)
    block = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)) for _ in "abc"]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


MODELS = {
    "cifar_resnet20": lambda: build_model("cifar_resnet20", 5, seed=0),
    "resnet18": lambda: build_model("resnet18", 5, seed=0),
    "with dropout": _dropping,
}


@pytest.mark.parametrize("name", MODELS)
def test_losses_gradients_and_statistics_have_the_same_bits_and_less_is_kept(name):
    plain, thrifty = MODELS[name](), MODELS[name]()
    recompute_activations(thrifty, name)
    assert list(thrifty.state_dict()) == list(plain.state_dict())
    for number in range(2):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        found = []
        for model in (plain, thrifty):
            torch.manual_seed(7)
            num_bytes, loss = _saved_bytes(model, images)
            loss.backward()
            found.append((num_bytes, loss.detach()))
        assert found[1][0] < 0.7 * found[0][0], "too much is kept"
        assert torch.equal(found[0][1], found[1][1])
        for ours, theirs in zip(thrifty.parameters(), plain.parameters(), strict=True):
            assert torch.equal(ours.grad, theirs.grad)
        # batch statistics above all: the second forward pass must not count
        for key, tensor in plain.state_dict().items():
            assert torch.equal(tensor, thrifty.state_dict()[key]), key
    plain.eval(), thrifty.eval()
    assert torch.equal(plain(images), thrifty(images))


def test_a_copy_of_such_a_model_computes_with_its_own_weights():
    model = MODELS["cifar_resnet20"]()
    recompute_activations(model, "cifar_resnet20")
    other = copy.deepcopy(model)
    nn.init.zeros_(other.classifier.weight)
    nn.init.constant_(other.classifier.bias, 3.0)
    for parameter in other.blocks.parameters():
        nn.init.zeros_(parameter)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(images), torch.full((2, 5), 3.0))
    assert other.train()(images).requires_grad and not torch.equal(model(images), other(images))


def test_a_model_without_blocks_is_refused_by_a_sentence():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    with pytest.raises(FeedrateError, match="model 'plain' has no sequence of blocks to recompute: leave out"):
        recompute_activations(model, "plain")


def test_a_whole_run_ends_with_the_same_bits(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, "synthetic")
    execution = dataclasses.replace(config.execution, checkpoint_activations=True)
    thrifty = dataclasses.replace(config, name="thrifty", execution=execution)
    assert run_to_end(thrifty) == run_to_end(config)


def test_it_does_not_go_with_torch_compile():
    with pytest.raises(FeedrateError, match="compile and checkpoint_activations are both on"):
        ExecutionConfig(compile=True, checkpoint_activations=True)
