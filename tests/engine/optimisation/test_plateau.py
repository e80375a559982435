"""Reduce-on-plateau: torch's decisions, and runs that go on from any batch with the rate they had."""

import dataclasses
import random
import shutil

import pytest
import torch
from short_runs import run_to_end, short_config

from engine.optimisation.optim_config import OptimConfig
from engine.optimisation.plateau import Plateau, build_plateau

CASES = [
    {"plateau_metric": "eval_loss", "plateau_patience": 2},
    {"plateau_metric": "eval_top1", "plateau_patience": 1, "plateau_factor": 0.5},
    {"plateau_metric": "eval_top5", "plateau_patience": 0, "plateau_threshold": 0.05},
    {"plateau_metric": "eval_loss", "plateau_patience": 0, "plateau_minimum": 0.003},
]


def _evaluations(num, seed=0):
    """A walk that gets better, worse and stands still, in turns."""
    draw = random.Random(seed)
    values = [1.0]
    for _ in range(num - 1):
        values.append(max(0.01, values[-1] * draw.choice([0.93, 0.999999, 1.0, 1.02, 1.05])))
    return values


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_the_rate_falls_when_torchs_does(settings, seed):
    config = OptimConfig(learning_rate=0.2, schedule="plateau", warmup_epochs=0, **settings)
    plateau = Plateau(config)
    rate = plateau.lowering(lambda step: config.learning_rate)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        "min" if config.plateau_metric == "eval_loss" else "max",
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        threshold=config.plateau_threshold,
        min_lr=config.plateau_minimum,
        eps=0.0,
    )
    seen = set()
    for value in _evaluations(40, seed):
        before = rate(0)
        lowered = plateau.observe({config.plateau_metric: value, "epoch": 3})
        reference.step(value)
        assert rate(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert lowered == (rate(0) < before)
        seen.add(rate(0))
    assert len(seen) > 1
    assert min(seen) >= config.plateau_minimum * (1 - 1e-12)


def test_an_evaluation_that_is_not_a_number_is_never_better():
    plateau = Plateau(OptimConfig(schedule="plateau", plateau_patience=1))
    assert [plateau.observe({"eval_loss": value}) for value in (float("nan"), 1.0, float("nan"), float("nan"))] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("settings", CASES)
def test_what_was_observed_is_taken_up_from_its_state_at_any_point(settings):
    config = OptimConfig(schedule="plateau", **settings)
    values = _evaluations(30)
    whole = Plateau(config)
    states = [whole.state_dict()]
    for value in values:
        whole.observe({config.plateau_metric: value})
        states.append(whole.state_dict())
    for cut in range(len(values)):
        resumed = build_plateau(config)
        resumed.load_state_dict(states[cut])
        for value in values[cut:]:
            resumed.observe({config.plateau_metric: value})
        assert resumed.state_dict() == states[-1], cut


def test_other_schedules_are_left_as_they_are():
    watcher = build_plateau(OptimConfig(schedule="cosine"))
    schedule = watcher.lowering(lambda step: 0.1 * step)
    assert not any(watcher.observe({"eval_loss": 1.0}) for _ in range(50))
    assert [schedule(step) for step in range(4)] == [0.1 * step for step in range(4)]
    watcher.load_state_dict(watcher.state_dict())


def test_a_run_lowers_its_rate_and_resumes_exactly_from_every_batch(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    # a loss nine tenths lower with every epoch is not to be had: each evaluation but the first lowers the rate
    optim = OptimConfig(
        learning_rate=0.05,
        schedule="plateau",
        warmup_epochs=0,
        plateau_patience=0,
        plateau_threshold=0.9,
        plateau_factor=0.5,
    )
    config = dataclasses.replace(config, epochs=4, optim=optim)
    expected = run_to_end(config)
    rates = {line["epoch"]: line["learning_rate"] for line in expected["metrics"] if line["kind"] == "step"}
    assert rates == {0: 0.05, 1: 0.05, 2: 0.025, 3: 0.0125}
    for step in (4, 9, 10, 12, 15, 17, 19):
        folder = tmp_path / f"from{step}"
        shutil.copytree(tmp_path / "whole" / "short", folder / "short")
        for path in (folder / "short" / "checkpoints").iterdir():
            if int(path.stem.split("-")[1]) > step:
                path.unlink()
        again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(folder)))
        assert run_to_end(again) == expected, f"resumed after step {step}"
