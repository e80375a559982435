import pytest
import torch
from torch import nn

from engine.model import build_model, model_names
from loaders.api import FeedrateError


def _num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_cifar_resnets_have_the_papers_layers_and_parameters(depth, millions):
    model = build_model(f"cifar_resnet{depth}", num_classes=10, seed=0)
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth
    assert _num_parameters(model) / 1e6 == pytest.approx(millions, abs=0.01)


def test_cifar_resnet_halves_its_resolution_twice():
    model = build_model("cifar_resnet20", num_classes=10, seed=0)
    assert model.blocks(torch.zeros(2, 16, 32, 32)).shape == (2, 64, 8, 8)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_option_a_shortcut_has_no_parameters_and_passes_every_second_pixel():
    block = build_model("cifar_resnet20", num_classes=10, seed=0).blocks[3]
    nn.init.zeros_(block.norm2.weight)  # the residual branch gives nothing: what is left is the shortcut
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    torch.testing.assert_close(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_torchvisions_resnets_are_known_and_get_the_number_of_classes_asked_for():
    assert {"resnet18", "resnet50", "resnet152"} <= set(model_names())
    assert build_model("resnet18", num_classes=7, seed=0).fc.out_features == 7


def test_weights_depend_on_the_seed_and_on_nothing_else():
    first = build_model("cifar_resnet20", 10, seed=1)
    torch.rand(5)
    again, other = build_model("cifar_resnet20", 10, seed=1), build_model("cifar_resnet20", 10, seed=2)
    assert torch.equal(first.conv.weight, again.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(FeedrateError, match="unknown model 'resnet19': did you mean resnet1"):
        build_model("resnet19", 10, 0)
