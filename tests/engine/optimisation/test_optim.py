"""Optimizers by name, what decays, and clipping."""

import copy
import dataclasses
import math
import shutil

import pytest
import timm
import timm.optim
import torch
from drawn_models import build_model
from short_runs import run_to_end, short_config
from small_training import refuse_unless_it_resumes, small_net, train
from torch import nn
from torchvision import models

from engine.optimisation.optim import build_optimizer, clip_gradients, parameter_groups
from engine.optimisation.optim_config import OPTIMIZERS, OptimConfig
from loaders.errors import FeedrateError


def _spared_names(model):
    decayed, spared = parameter_groups(model, 1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == 1e-4 and spared["weight_decay"] == 0
    in_groups = [names[id(parameter)] for group in (decayed, spared) for parameter in group["params"]]
    assert sorted(in_groups) == sorted(names.values())  # each once
    return {names[id(parameter)] for parameter in spared["params"]}


def test_no_norm_and_no_bias_decays_whatever_it_is_called():
    model = build_model("resnet50", num_classes=10, seed=0)
    decayed, spared = parameter_groups(model, 1e-4)
    spared_ids = {id(parameter) for parameter in spared["params"]}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    for norm in norms:
        assert id(norm.weight) in spared_ids and id(norm.bias) in spared_ids
    assert id(model.fc.bias) in spared_ids and id(model.fc.weight) not in spared_ids
    assert len(spared["params"]) == 2 * 53 + 1
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def _ends(model, *endings):
    return {name for name, _ in model.named_parameters() if name.endswith(endings)}


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_a_vision_transformers_token_and_position_embedding_do_not_decay(source):
    if source == "timm":
        model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)
        expected = _ends(model, "bias", "norm.weight", "norm1.weight", "norm2.weight") | {"cls_token", "pos_embed"}
    else:
        model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
        expected = _ends(model, "bias", "ln.weight", "ln_1.weight", "ln_2.weight")
        expected |= {"class_token", "encoder.pos_embedding"}
    assert _spared_names(model) == expected


def test_layer_scale_of_three_dimensions_does_not_decay():
    setting = models.convnext.CNBlockConfig(8, 8, 2)
    model = models.ConvNeXt([setting], num_classes=5)
    scales = _ends(model, "layer_scale")
    assert scales and {tuple(model.get_parameter(name).shape) for name in scales} == {(8, 1, 1)}
    norms = {
        name
        for prefix, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name in (f"{prefix}.weight", f"{prefix}.bias")
    }
    assert _spared_names(model) == scales | norms | _ends(model, "bias")


def test_biases_in_a_table_do_not_decay():
    swin = models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=5)
    tables = _ends(swin, "relative_position_bias_table")
    assert len(tables) == 2 and tables <= _spared_names(swin)
    timms = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(2, 2), embed_dim=8)
    tables = _ends(timms, "relative_position_bias_table")
    assert len(tables) == 2 and tables <= _spared_names(timms)


def test_a_norm_over_several_dimensions_does_not_decay_and_a_layer_of_one_output_does():
    model = nn.Sequential(nn.LayerNorm([3, 4, 4]), nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(16, 1))
    assert _spared_names(model) == {"0.weight", "0.bias", "1.bias", "3.bias"}


def test_a_part_says_which_of_its_own_do_not_decay():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ParameterList([nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))])
            self.weight = nn.Parameter(torch.ones(3, 4))

        def no_weight_decay(self):
            return {"tables.*"}

    assert _spared_names(nn.Sequential(Part(), nn.Linear(2, 2))) == {"0.tables.0", "0.tables.1", "1.bias"}


def test_frozen_parameters_are_left_out():
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    decayed, spared = parameter_groups(model, 1e-4)
    assert not decayed["params"] and len(spared["params"]) == 1


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.9)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.9)}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.8}),
        ("lars", timm.optim.Lars, {"momentum": 0.8, "nesterov": True}),
        ("lamb", timm.optim.Lamb, {"betas": (0.8, 0.9)}),
        ("muon", timm.optim.Muon, {"momentum": 0.8, "nesterov": True, "betas": (0.8, 0.9)}),
        ("timm/nlars", timm.optim.Lars, {"momentum": 0.8}),
        ("timm/radam", torch.optim.RAdam, {"betas": (0.8, 0.9)}),
    ],
)
def test_an_optimizer_is_torchs_or_timms_with_the_settings_asked_for(name, kind, settings):
    optimizer = build_optimizer(OptimConfig(name=name, learning_rate=0.2, **settings), nn.Linear(3, 2))
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-5, 0.0]
    for group in optimizer.param_groups:
        assert group["lr"] == 0.2
        assert {key: group[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("adamw", (0.9, 0.999)),
        ("lamb", (0.9, 0.999)),
        ("muon", (0.9, 0.95)),
        ("timm/lion", (0.9, 0.99)),
        ("timm/adopt", (0.9, 0.9999)),
    ],
)
def test_betas_that_are_not_asked_for_are_the_optimizers_own(name, own):
    optimizer = build_optimizer(OptimConfig(name=name), nn.Linear(3, 2))
    assert [tuple(group["betas"]) for group in optimizer.param_groups] == [own, own]


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (0.9, -0.1), (0.9, 0.99, 0.999)])
def test_betas_are_two_shares_below_1(betas):
    with pytest.raises(FeedrateError, match="they must be two numbers from 0 to below 1, or none"):
        OptimConfig(betas=betas)


def test_timms_variants_keep_what_their_names_say():
    groups = build_optimizer(OptimConfig(name="timm/nlars"), nn.Linear(3, 2)).param_groups
    assert groups[0]["nesterov"] is True
    groups = build_optimizer(OptimConfig(name="timm/larc"), nn.Linear(3, 2)).param_groups
    assert groups[0]["trust_clip"] is True and groups[0]["nesterov"] is False


def test_options_are_the_optimizers_own_arguments():
    config = OptimConfig(name="lars", options=("trust_coeff=0.02", "trust_clip=True"))
    group = build_optimizer(config, nn.Linear(3, 2)).param_groups[0]
    assert group["trust_coeff"] == 0.02 and group["trust_clip"] is True
    config = OptimConfig(name="muon", options=("adjust_lr_fn=original",))
    assert build_optimizer(config, nn.Linear(3, 2)).param_groups[0]["adjust_lr_fn"] == "original"


def _by_name(optimizer, model):
    """What the optimizer multiplies the rate of each parameter by, and how much each decays."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    group_of = {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}
    scales = {name: group.get("lr_scale", 1.0) for name, group in group_of.items()}
    return scales, {name: group["weight_decay"] for name, group in group_of.items()}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "timm/lookahead_sgd"])
def test_a_factor_is_of_the_parameters_its_pattern_fits_and_the_last_that_fits_counts(name):
    model = small_net()
    factors = (("1.*", 64.0), ("*.bias", 2.0), ("5.bias", 7.0))
    optimizer = build_optimizer(OptimConfig(name=name, rate_factors=factors), model)
    scales, decays = _by_name(optimizer, model)
    assert scales == {
        "0.weight": 1.0,
        "0.bias": 2.0,
        "1.weight": 64.0,
        "1.bias": 2.0,
        "4.weight": 1.0,
        "4.bias": 2.0,
        "5.weight": 1.0,
        "5.bias": 7.0,
    }
    assert {name for name, decay in decays.items() if decay} == {"0.weight", "4.weight", "5.weight"}
    assert "lr_scale" not in optimizer.param_groups[0], "the first group tells the rate of the schedule"


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "timm/lookahead_sgd"])
def test_a_factor_of_decay_is_of_what_its_pattern_fits_whether_that_would_decay_or_not(name):
    model = small_net()
    decays, rates = (("*.bias", 1.0), ("1.*", 0.25), ("5.weight", 0.0)), (("1.bias", 64.0), ("4.*", 2.0))
    config = OptimConfig(name=name, weight_decay=0.5, decay_factors=decays, rate_factors=rates)
    scales, decays = _by_name(build_optimizer(config, model), model)
    assert decays == {
        "0.weight": 0.5,
        "0.bias": 0.5,
        "1.weight": 0.125,
        "1.bias": 0.125,
        "4.weight": 0.5,
        "4.bias": 0.5,
        "5.weight": 0.0,
        "5.bias": 0.5,
    }
    assert {name: scale for name, scale in scales.items() if scale != 1} == {
        "1.bias": 64.0,
        "4.weight": 2.0,
        "4.bias": 2.0,
    }


def test_without_factors_an_optimizer_is_made_of_the_groups_it_always_was():
    groups = build_optimizer(OptimConfig(), small_net()).param_groups
    assert len(groups) == 2 and not any("lr_scale" in group for group in groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rate_factors": (("wieght", 2.0),)},
            "'wieght', which fits no parameter that is trained: did you mean weight?",
        ),
        (
            {"rate_factors": (("fc.*", 2.0),)},
            "'fc.*', which fits no parameter that is trained: the first are weight, bias",
        ),
        ({"rate_factors": (("*", 0.0),)}, "rate_factors has 0 for '*': a factor must be a number above 0"),
        ({"rate_factors": (("*", math.nan),)}, "rate_factors has nan for '*': a factor must be a number above 0"),
        ({"rate_factors": (("*", math.inf),)}, "rate_factors has inf for '*': a factor must be a number above 0"),
        (
            {"decay_factors": (("biass", 2.0),)},
            "decay_factors has 'biass', which fits no parameter that is trained: did you mean bias?",
        ),
        ({"decay_factors": (("*", -1.0),)}, "decay_factors has -1 for '*': a factor must be a number, 0 or more"),
        ({"decay_factors": (("*", math.nan),)}, "decay_factors has nan for '*': a factor must be a number, 0 or more"),
        ({"decay_factors": (("*", math.inf),)}, "decay_factors has inf for '*': a factor must be a number, 0 or more"),
        ({"name": "adamv"}, "unknown optimizer 'adamv': did you mean adam"),
        ({"name": "LARS"}, "unknown optimizer 'LARS'"),
        ({"name": "timm/adabelif"}, "unknown optimizer 'timm/adabelif': did you mean timm/adabelief?"),
        ({"name": "timm/own_adamw"}, "unknown optimizer 'timm/own_adamw'"),
        ({"name": "timm/adahessian"}, "none that needs second derivatives"),
        ({"name": "adamw", "nesterov": True}, "only sgd, lars, muon have it"),
        ({"options": ("dampning=0.5",)}, "options has 'dampning=0.5': did you mean dampening?"),
        ({"options": ("dampening",)}, "it must be NAME=VALUE"),
        ({"options": ("lr=0.5",)}, "options has 'lr=0.5'"),
        ({"options": ("momentum=0.5",)}, "options has 'momentum=0.5'"),
        ({"name": "adamw", "options": ("eps=-1",)}, "the optimizer adamw cannot be made: Invalid epsilon"),
        ({"name": "adamw", "options": ("eps=much",)}, "the optimizer adamw cannot be made"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_sentence(settings, message):
    with pytest.raises(FeedrateError) as error:
        build_optimizer(OptimConfig(**settings), nn.Linear(3, 2))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "timm/adafactorbv", "timm/lookahead_sgd"])
def test_an_optimizer_goes_on_from_a_checkpoint_with_the_same_bits(name):
    refuse_unless_it_resumes(name)  # the rest of timm's: tests/long/test_optimizers.py


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "lamb", "muon", "rmsprop"])
def test_a_whole_run_resumes_with_the_same_bits(image_folder, tmp_path, name):
    config = short_config(image_folder, tmp_path / "whole")
    optim = dataclasses.replace(config.optim, name=name, learning_rate=0.01, clip_value=0.05)
    config = dataclasses.replace(config, optim=optim)
    expected = run_to_end(config)
    shutil.copytree(tmp_path / "whole" / "short", tmp_path / "again" / "short")
    for path in (tmp_path / "again" / "short" / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > 3:
            path.unlink()
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    assert run_to_end(again) == expected


def test_muon_orthogonalises_convolutions_too_and_leaves_the_rest_to_adamw():
    model = small_net()
    before = copy.deepcopy(model)
    optimizer = build_optimizer(OptimConfig(name="muon", learning_rate=0.01, weight_decay=0.0, momentum=0.0), model)
    train(model, optimizer, [0])
    conv, norm, head = model[0], model[1], model[5]
    # the head's gradient has the rank of its outputs less one: over the classes it sums to 0
    for layer, first, rank in ((conv, before[0], 8), (head, before[5], 4)):
        move = (layer.weight - first.weight).detach().flatten(1)
        spread = torch.linalg.svdvals(move)[:rank]
        assert spread.min() > 0.5 * spread.max()  # Newton-Schulz brings all of them near 1
        assert "momentum_buffer" in optimizer.state[layer.weight]
    for parameter in (conv.bias, norm.weight, norm.bias, head.bias):
        assert "exp_avg" in optimizer.state[parameter]


def _with_gradients(scale=1.0):
    model = small_net()
    (nn.functional.cross_entropy(model(torch.ones(4, 3, 8, 8)), torch.arange(4)) * scale).backward()
    return model


@pytest.mark.parametrize(("clip_value", "clip_norm"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.05), (0.01, 0.02)])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_gradients_are_clipped_by_value_then_by_norm_and_unscaled_before(clip_value, clip_norm, scale):
    config = OptimConfig(clip_value=clip_value, clip_norm=clip_norm)
    expected = [parameter.grad.clone() for parameter in _with_gradients().parameters()]
    if clip_value:
        expected = [gradient.clamp(-clip_value, clip_value) for gradient in expected]
    if clip_norm:
        norm = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in expected))
        assert norm > clip_norm
        expected = [gradient * (clip_norm / (norm + 1e-6)).float() for gradient in expected]
    model = _with_gradients(scale)
    optimizer = build_optimizer(config, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
    scaler.scale(torch.ones(()))  # a scaler makes its scale when it first scales a loss
    clip_gradients(model.parameters(), optimizer, scaler, config)
    clipped = clip_value or clip_norm
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient if clipped else gradient * scale, rtol=1e-4, atol=1e-7)
