"""Parameters that rest in some epochs: which, that nothing moves them, and that all else trains as if they were not."""

import dataclasses

import pytest
import torch
from drawn_models import build_model
from safetensors.torch import load_file
from short_runs import ONE_RANK, resumed_after, run_to_end, short_config, start_from
from torch import nn

from engine.command_line import parse_config
from engine.config import OptimConfig
from engine.finders.learning_rate import SweepSettings, find_learning_rates
from engine.optimisation.average import AverageConfig
from engine.optimisation.frozen_epochs import FrozenEpochs
from engine.reporting.display import Display
from loaders.errors import FeedrateError

BLOCKS = "blocks.[0-2].*"


def _model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5, bias=False))


def _trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    "rules, expected",
    [
        ([], ["all"] * 4),
        ([("0.*", 1, 3)], ["all", ["1.weight", "1.bias", "3.weight"], ["1.weight", "1.bias", "3.weight"], "all"]),
        ([("0.weight", 2, -1)], ["all", "all", *[["0.bias", "1.weight", "1.bias", "3.weight"]] * 2]),
        ([("*", 0, 2), ("3.*", 0, 0)], [["3.weight"], ["3.weight"], "all", "all"]),
        ([("3.*", 0, 9), ("*.weight", 1, 2)], ["all", ["0.bias", "1.bias"], "all", "all"]),
    ],
)
def test_in_each_epoch_what_a_rule_names_rests_and_of_several_rules_the_last_counts(rules, expected):
    model = _model()
    every = _trained(model)
    frozen = FrozenEpochs(model, rules, num_epochs=4)
    assert _trained(model) == every, "nothing rests before the first epoch begins"
    before = every
    for epoch, names in enumerate(expected):
        now = every if names == "all" else names
        assert frozen.begin(epoch) == (now != before)
        assert _trained(model) == now and set(frozen.resting) == set(every) - set(now)
        before = now
    frozen.begin(0)  # as a run that goes on does with any epoch
    assert _trained(model) == (every if expected[0] == "all" else expected[0])
    assert frozen.num_states == len({str(names) for names in expected})


def test_what_is_never_trained_is_not_trained_after_a_rest_either():
    model = _model()
    model[0].weight.requires_grad_(False)
    frozen = FrozenEpochs(model, [("3.*", 0, 1)], num_epochs=2)
    frozen.begin(0)
    frozen.begin(1)
    assert _trained(model) == ["0.bias", "1.weight", "1.bias", "3.weight"]


def test_a_batch_norm_whose_parameters_rest_keeps_its_statistics_until_they_are_trained_again():
    model = build_model("resnet18", 10, seed=0)
    frozen = FrozenEpochs(model, [("layer1.*", 1, 2), ("layer2.0.bn1.weight", 1, 2)], num_epochs=3)
    modes = []
    for epoch in range(3):
        frozen.begin(epoch)
        model.eval()
        model.train()
        modes.append((model.layer1[0].bn1.training, model.layer2[0].bn1.training, model.bn1.training))
    assert modes == [(True, True, True), (False, True, True), (True, True, True)]


@pytest.mark.parametrize(
    "rules, message",
    [
        ([("lyer1.*", 0, 1)], r"frozen_epochs has 'lyer1\.\*', which fits no parameter that is trained"),
        ([("*", 1, 2)], "frozen_epochs lets all 5 parameters rest in epoch 1, counted from 0: something must be"),
        ([("0.*", 0, 9), ("[13].*", 3, 9)], "frozen_epochs lets all 5 parameters rest in epoch 3"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_before_anything_is_trained(rules, message):
    with pytest.raises(FeedrateError, match=message):
        FrozenEpochs(_model(), rules, num_epochs=4)


@pytest.mark.parametrize("first, end", [(-1, 2), (3, 2), (0, -2)])
def test_epochs_that_are_none_are_refused(first, end):
    with pytest.raises(FeedrateError, match=f"frozen_epochs has {first} and {end} for 'fc.\\*': the first epoch must"):
        OptimConfig(frozen_epochs=(("fc.*", first, end),))


def test_on_the_command_line_rules_follow_each_other():
    given = ["--optim.frozen-epochs", "*", "0", "2", "fc.*", "0", "0"]
    assert parse_config(given).optim.frozen_epochs == (("*", 0, 2), ("fc.*", 0, 0))
    assert parse_config(["--config", "cifar10_fast"]).optim.frozen_epochs == (("whitening.bias", 3, -1),)
    with pytest.raises(FeedrateError, match="it must be a pattern and two whole numbers each time"):
        parse_config(["--optim.frozen-epochs", "fc.*", "2"])


def _run(image_folder, folder, **optim):
    config = short_config(image_folder, folder, epochs=3)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, weight_decay=0.1, **optim))


def test_what_rests_does_not_move_by_steps_decay_or_momentum_and_moves_again_behind_its_rest(image_folder, tmp_path):
    config = _run(image_folder, tmp_path, frozen_epochs=((BLOCKS, 1, 2),))
    run_to_end(config)
    checkpoints = tmp_path / "short" / "checkpoints"
    begun, rested, ended = (
        torch.load(checkpoints / f"step-{step:08d}.pt", weights_only=True)["model"] for step in (5, 10, 15)
    )
    resting = {name for name in begun if name.split(".")[:2] in (["blocks", "0"], ["blocks", "1"], ["blocks", "2"])}
    assert resting
    moved = {name for name in begun if not torch.equal(begun[name], rested[name])}
    assert moved & resting == set()
    assert moved == begun.keys() - resting
    assert {name for name in begun if torch.equal(rested[name], ended[name])} == set()


def test_a_run_that_goes_on_in_any_epoch_has_the_same_bits(image_folder, tmp_path):
    config = _run(
        image_folder, tmp_path / "whole", frozen_epochs=(("*", 0, 1), ("classifier.*", 0, 0), (BLOCKS, 2, -1))
    )
    expected = run_to_end(config)
    for step in (5, 7, 13):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


def test_an_average_keeps_the_statistics_that_rest(image_folder, tmp_path):
    average = AverageConfig(swa_start_epoch=1)
    config = _run(image_folder, tmp_path, frozen_epochs=(("*", 1, -1), ("classifier.*", 0, 0)))
    run_to_end(dataclasses.replace(config, average=average))
    begun = torch.load(tmp_path / "short" / "checkpoints" / "step-00000005.pt", weights_only=True)["model"]
    averaged = load_file(tmp_path / "short" / "swa.safetensors")
    statistics = [name for name in begun if name.endswith(("running_mean", "running_var"))]
    assert statistics and all(torch.allclose(averaged[name], begun[name]) for name in statistics)


def test_what_rests_by_rules_that_are_new_in_an_open_window_does_not_move_by_it(image_folder, tmp_path):
    config = _run(image_folder, tmp_path / "whole", accumulate=5)
    run_to_end(config)
    start_from(tmp_path / "whole" / "short", 3, tmp_path / "changed" / "short")
    changed = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, frozen_epochs=((BLOCKS, 0, 1),)),
        run=dataclasses.replace(
            config.run, folder=str(tmp_path / "changed"), allow_change=("config.optim.frozen_epochs",)
        ),
    )
    run_to_end(changed)
    checkpoints = tmp_path / "changed" / "short" / "checkpoints"
    begun, ended = (torch.load(checkpoints / f"step-{step:08d}.pt", weights_only=True)["model"] for step in (3, 5))
    resting = [name for name, _ in build_model("cifar_resnet20", 3, seed=0).named_parameters() if "blocks.0." in name]
    assert resting and all(torch.equal(begun[name], ended[name]) for name in resting)
    assert not torch.equal(begun["classifier.weight"], ended["classifier.weight"])


def test_a_search_for_rates_trains_what_the_first_epoch_does(image_folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("engine.finders.learning_rate.sweep", lambda step, *rest: seen.append(_trained(step.module)))
    config = _run(image_folder, tmp_path, frozen_epochs=(("*", 0, 1), ("classifier.*", 0, 0)))
    find_learning_rates(config, ONE_RANK, SweepSettings(), print)
    assert seen == [["classifier.weight", "classifier.bias"]]


def test_the_log_says_what_is_trained_where_that_changes(image_folder, tmp_path, capsys):
    config = _run(image_folder, tmp_path, frozen_epochs=((BLOCKS, 1, 2),))
    run_to_end(config, Display(is_main=True))
    told = [line for line in capsys.readouterr().out.splitlines() if "trained from here on" in line]
    assert len(told) == 2
    assert "41 of 59 parameters, not blocks.0.conv1.weight, " in told[0] and " and 15 more" in told[0]
    assert told[1].endswith("59 of 59 parameters")
