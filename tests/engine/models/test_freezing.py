import copy

import torch
from drawn_models import build_model
from torch import nn

from engine.config import OptimConfig
from engine.models.freezing import freeze_all_but
from engine.optimisation.optim import build_optimizer


def _frozen():
    model = build_model("resnet18", 10, seed=0)
    freeze_all_but(model, ("fc",))
    return model


def test_only_the_classifier_is_trained():
    assert [name for name, parameter in _frozen().named_parameters() if parameter.requires_grad] == [
        "fc.weight",
        "fc.bias",
    ]


def test_batch_norms_of_the_frozen_part_use_and_keep_their_own_statistics_in_training():
    model = _frozen()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    images = 5 + 3 * torch.randn(4, 3, 64, 64)
    scores = model(images)
    assert model.training and model.fc.training
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    torch.testing.assert_close(scores, model.eval()(images))
    model.train()
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_step_moves_the_classifier_and_nothing_else():
    model = _frozen()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(OptimConfig(weight_decay=0.1, learning_rate=0.1), model)
    model.train()
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert moved == ["fc.weight", "fc.bias"]


def test_a_frozen_model_can_be_copied_and_its_weights_have_the_usual_names():
    model = _frozen()
    twin = copy.deepcopy(model).train()
    assert not twin.layer1[0].bn1.training
    assert twin.state_dict().keys() == build_model("resnet18", 10, seed=0).state_dict().keys()


def test_a_batch_norm_inside_the_trained_part_is_trained():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    freeze_all_but(model, ("1",))
    model.train()
    assert not model[0].training and model[1][1].training
    assert not model[0].weight.requires_grad and model[1][1].weight.requires_grad
