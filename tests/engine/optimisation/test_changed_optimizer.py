"""An optimizer taken up under other settings goes on with these, and with all it had gathered."""

import io
from dataclasses import replace

import pytest
import torch
from short_runs import state_digest
from small_training import small_net, train

from engine.optimisation.changed_optimizer import ChangedOptimizer, settings_before
from engine.optimisation.optim import build_optimizer
from engine.optimisation.optim_config import OptimConfig


def _trained(config):
    model = small_net()
    optimizer = build_optimizer(config, model)
    train(model, optimizer, range(7))  # Lookahead has then met its slow weights once
    return model, optimizer


def _taken_up(model, optimizer, config, before):
    """Model and optimizer of a run under `config`, from a checkpoint of those given, and what was said."""
    file, said = io.BytesIO(), []
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    content = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed = small_net()
    resumed.load_state_dict(content["model"])
    made = build_optimizer(config, resumed)
    ChangedOptimizer(made, resumed, config, before, said.append).load_state_dict(content["optimizer"])
    return resumed, made, said


@pytest.mark.parametrize(
    ("name", "before", "now", "in_group"),
    [
        ("sgd", {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"weight_decay": 0.3}),
        ("sgd", {"momentum": 0.9}, {"momentum": 0.5}, {"momentum": 0.5}),
        ("sgd", {"momentum": 0.0}, {"momentum": 0.5}, {"momentum": 0.5}),
        ("sgd", {}, {"nesterov": True}, {"nesterov": True}),
        ("sgd", {"options": ("dampening=0.5",)}, {}, {"dampening": 0}),
        ("adamw", {}, {"betas": (0.5, 0.9)}, {"betas": (0.5, 0.9)}),
        ("adamw", {}, {"options": ("eps=1e-3",)}, {"eps": 1e-3}),
        ("lamb", {}, {"weight_decay": 0.3}, {"weight_decay": 0.3}),
        ("muon", {}, {"momentum": 0.5, "weight_decay": 0.3}, {"momentum": 0.5, "weight_decay": 0.3}),
        # what the rate is compared with to scale the decay; the rate itself is set before each update
        (
            "timm/adamc",
            {"learning_rate": 0.1, "weight_decay": 0.3},
            {"learning_rate": 0.2, "weight_decay": 0.3},
            {"max_lr_snapshot": 0.2},
        ),
        ("timm/lookahead_sgd", {}, {"weight_decay": 0.3}, {"weight_decay": 0.3}),
        ("sgd", {"rate_factors": (("*", 2.0),)}, {"rate_factors": (("*", 0.5),)}, {"lr_scale": 0.5}),
        (
            "sgd",
            {"weight_decay": 0.3, "decay_factors": (("*", 2.0),)},
            {"weight_decay": 0.3, "decay_factors": (("*", 0.5),)},
            {"weight_decay": 0.15},
        ),
        ("sgd", {"rate_factors": (("*", 2.0),)}, {"rate_factors": (("0.*", 9.0), ("*", 0.5))}, {"lr_scale": 0.5}),
    ],
)
def test_a_changed_setting_is_what_it_goes_on_with(name, before, now, in_group):
    old, new = OptimConfig(name=name, **before), OptimConfig(name=name, **now)
    model, optimizer = _trained(old)
    resumed, made, said = _taken_up(model, optimizer, new, old)
    for number, group in enumerate(optimizer.param_groups):
        # the second group is what decays by no general rule
        group.update({key: value for key, value in in_group.items() if key != "weight_decay" or number != 1})
    train(model, optimizer, range(7, 15))
    train(resumed, made, range(7, 15))
    assert state_digest(resumed.state_dict()) == state_digest(model.state_dict())
    assert not said

    same, unchanged = _trained(old)
    train(same, unchanged, range(7, 15))
    assert state_digest(same.state_dict()) != state_digest(model.state_dict()), "the change changes nothing"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (OptimConfig(name="sgd"), OptimConfig(name="adamw"), "the optimizer was sgd and is adamw: it starts anew"),
        (OptimConfig(name="adamw"), OptimConfig(name="adam"), "the optimizer was adamw and is adam: it starts anew"),
        (OptimConfig(name="adam"), OptimConfig(name="adam", options=("amsgrad=True",)), "holds no max_exp_avg_sq"),
        (OptimConfig(name="rmsprop", momentum=0.0), OptimConfig(name="rmsprop"), "holds no momentum_buffer"),
        (OptimConfig(), OptimConfig(rate_factors=(("*", 2.0),)), "rate_factors part the parameters"),
        (
            OptimConfig(decay_factors=(("0.*", 2.0),)),
            OptimConfig(decay_factors=(("*", 2.0),), rate_factors=(("*", 3.0),)),
            "decay_factors and rate_factors part the parameters",
        ),
    ],
)
def test_what_cannot_go_on_starts_anew_and_says_so(old, new, told):
    model, optimizer = _trained(old)
    resumed, made, said = _taken_up(model, optimizer, new, old)
    assert len(said) == 1 and told in said[0] and said[0].endswith("it starts anew")
    fresh = build_optimizer(new, model)
    train(model, fresh, range(7, 9))
    train(resumed, made, range(7, 9))
    assert state_digest(resumed.state_dict()) == state_digest(model.state_dict())


def test_of_two_settings_the_one_that_parts_the_parameters_is_named():
    old = OptimConfig(decay_factors=(("*", 1.0),))
    model, optimizer = _trained(old)
    new = replace(old, decay_factors=(("*", 2.0),), rate_factors=(("0.*", 3.0),))
    said = _taken_up(model, optimizer, new, old)[2]
    assert len(said) == 1 and said[0].startswith("rate_factors part the parameters")


def test_only_what_an_optimizer_is_made_of_counts_as_a_change_of_it():
    now = OptimConfig(label_smoothing=0.0, momentum=0.5, betas=(0.5, 0.9))
    saved = {"optim.momentum": 0.9, "optim.betas": [0.9, 0.999], "optim.label_smoothing": 0.1, "epochs": 3}
    assert settings_before(now, saved, {"config.epochs", "config.optim.label_smoothing", "config.optim.options"}) == now
    assert settings_before(now, saved, {"config.optim.momentum", "config.optim.betas", "pixels.loader"}) == replace(
        now, momentum=0.9, betas=(0.9, 0.999)
    )


def test_what_a_checkpoint_does_not_tell_of_was_as_it_is_by_default():
    now = OptimConfig(rate_factors=(("*", 2.0),))
    assert settings_before(now, {}, {"config.optim.rate_factors"}) == OptimConfig()
    saved = {"optim.rate_factors": [["0.*", 3.0]]}
    assert settings_before(now, saved, {"config.optim.rate_factors"}).rate_factors == (("0.*", 3.0),)
