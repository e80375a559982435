import pytest
import torch
from torch import nn

from engine.config import OptimConfig
from engine.model import build_model
from engine.optim import build_optimizer, parameter_groups


def test_no_norm_and_no_bias_decays_whatever_it_is_called():
    model = build_model("resnet50", num_classes=10, seed=0)
    decayed, spared = parameter_groups(model, 1e-4)
    spared_ids = {id(parameter) for parameter in spared["params"]}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    for norm in norms:
        assert id(norm.weight) in spared_ids and id(norm.bias) in spared_ids
    assert id(model.fc.bias) in spared_ids and id(model.fc.weight) not in spared_ids
    assert decayed["weight_decay"] == 1e-4 and spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizers_are_torchs_with_the_settings_asked_for(name, kind):
    config = OptimConfig(name=name, learning_rate=0.2, momentum=0.8, nesterov=True, betas=(0.8, 0.9))
    optimizer = build_optimizer(config, nn.Linear(3, 2))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.2
    if name == "sgd":
        assert group["momentum"] == 0.8 and group["nesterov"]
    else:
        assert group["betas"] == (0.8, 0.9)


def test_frozen_parameters_are_left_out():
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    decayed, spared = parameter_groups(model, 1e-4)
    assert not decayed["params"] and len(spared["params"]) == 1
