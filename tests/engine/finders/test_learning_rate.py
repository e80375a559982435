"""The range test: the rates it tries, what it suggests, and that nothing is left of it."""

import copy
import dataclasses
import itertools
import math
import random
import re

import numpy as np
import pytest
import torch
from short_runs import ONE_RANK, short_config, state_digest

from engine.build import build_step, choose_kernels
from engine.config import ModelConfig
from engine.data import open_data
from engine.finders import learning_rate
from engine.finders.learning_rate import Sweep, SweepSettings, find_learning_rates, suggest, sweep
from engine.model import start_model
from engine.optimisation.optim_config import OptimConfig
from loaders.errors import FeedrateError

SHORT = SweepSettings(lowest_rate=1e-4, highest_rate=0.1, num_updates=12)


def _quiet(text):
    pass


def _swept(settings, loss_of):
    rates = tuple(settings.rate(update) for update in range(settings.num_updates))
    return Sweep(settings, rates, tuple(loss_of(rate) for rate in rates), "")


def test_the_rate_goes_from_end_to_end_in_equal_factors_or_equal_steps():
    exponential = SweepSettings(1e-5, 10.0, 61)
    rates = [exponential.rate(update) for update in range(61)]
    assert rates[0] == pytest.approx(1e-5) and rates[-1] == pytest.approx(10.0)
    assert [after / before for before, after in itertools.pairwise(rates)] == pytest.approx([10**0.1] * 60)
    linear = SweepSettings(0.1, 0.7, 61, "linear")
    assert [linear.rate(update) for update in range(61)] == pytest.approx([0.1 + 0.01 * k for k in range(61)])


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize(("centre", "width"), [(-2.0, 0.5), (-1.5, 0.3)])
def test_the_suggestion_is_where_the_fall_of_the_loss_begins_and_where_most_of_it_is_done(centre, width, noise):
    """A loss that falls along a logistic curve over the rate's logarithm, and explodes above a rate of 3."""
    draw = random.Random(1)

    def loss_of(rate):
        along = math.log10(rate)
        fall = 1.3 / (1 + math.exp(-(along - centre) / width))
        return 2.3 - fall + math.exp(min(50.0, 12 * (along - 0.5))) + draw.gauss(0, noise)

    suggestion = suggest(_swept(SweepSettings(1e-6, 10.0, 300, smoothing_updates=21), loss_of))
    # a logistic curve has done a tenth of its fall ln 9 widths before its middle, and nine tenths as far behind it
    within = 0.1 if noise == 0 else 0.3
    assert math.log10(suggestion.maximum) == pytest.approx(centre + width * math.log(9), abs=within)
    begins = min(centre - width * math.log(9), math.log10(suggestion.maximum) - 1)
    assert math.log10(suggestion.minimum) == pytest.approx(begins, abs=within)
    assert suggestion.maximum < suggestion.lowest_loss_at < 3.2


@pytest.mark.parametrize("seed", range(20))
def test_a_suggestion_comes_from_a_share_of_the_fall_and_not_from_the_noise_of_batches(seed):
    """As of small batches of a small net: high at first for its weights, then three decades of a slow fall."""
    draw = random.Random(seed)

    def loss_of(rate):
        along = math.log10(rate)
        fall = 2.0 / (1 + math.exp(-(along + 3.3) / 0.35))
        return 3.8 - fall + math.exp(min(3.0, 4 * (along + 1.2))) + draw.gauss(0, 0.35)

    suggestion = suggest(_swept(SweepSettings(), loss_of))
    assert 8e-4 < suggestion.maximum < 0.025
    assert suggestion.minimum <= suggestion.maximum / 10


def test_nothing_is_suggested_where_the_loss_never_fell_or_too_little_was_seen():
    assert suggest(_swept(SweepSettings(1e-3, 10.0, 50), lambda rate: 2.0 + rate)) == "the loss did not fall"
    assert suggest(_swept(SweepSettings(1e-3, 10.0, 50), lambda rate: 2.0)) == "the loss did not fall"
    assert suggest(Sweep(SHORT, (), (), "the loss was nan at once")) == "0 updates are too few to tell"


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_suggested_where_the_loss_fell_no_more_than_batches_differ(seed):
    draw = random.Random(seed)
    told = suggest(_swept(SweepSettings(), lambda rate: 2.3 + draw.gauss(0, 0.2)))
    assert isinstance(told, str)
    assert re.fullmatch(
        r"the loss did not fall|the loss fell by 0\.\d+, no more than 2 times what single batches differ by"
        r" \(0\.\d+, a standard deviation\)",
        told,
    )


def test_smoothing_is_the_mean_around_each_update():
    losses = [5.0, 1.0, 4.0, 2.0, 8.0, 6.0]
    settings = SweepSettings(1e-3, 1.0, 10, smoothing_updates=3)
    swept = Sweep(settings, tuple([0.1] * 6), tuple(losses), "")
    assert list(swept.smoothed()) == pytest.approx([3.0, 10 / 3, 7 / 3, 14 / 3, 16 / 3, 7.0])


def _everything(step):
    return {
        "model": step.module.state_dict(),
        "gradients": [parameter.grad for parameter in step.module.parameters()],
        "training": [part.training for part in step.module.modules()],
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.precision.scaler.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


def _train(step, batches, first):
    return [step(batch.images, batch.labels, batch.ids, first + i)[0].item() for i, batch in enumerate(batches)]


@pytest.mark.parametrize(
    ("name", "precision", "trained_before"),
    [("sgd", "fp32", 0), ("sgd", "fp16", 3), ("adamw", "fp32", 2), ("muon", "fp16", 0)],
)
def test_all_is_as_it_was_to_the_bit_and_training_goes_on_as_if_nothing_had_been(
    image_folder, tmp_path, name, precision, trained_before
):
    config = short_config(image_folder, tmp_path, "synthetic")
    optim = dataclasses.replace(config.optim, name=name, learning_rate=0.01, lookahead_every_updates=2)
    config = dataclasses.replace(
        config, optim=optim, execution=dataclasses.replace(config.execution, precision=precision)
    )
    data = open_data(config, ONE_RANK, _quiet)
    try:
        batches = [copy.deepcopy(batch) for batch in data.train.epoch(0)]
        losses = []
        for sweeps in (False, True):
            step = build_step(config, ONE_RANK, data.num_classes, data.channels, len(data.train))
            step.module.train()
            _train(step, batches[:trained_before], 0)
            if sweeps:
                before, schedule = state_digest(_everything(step)), step.schedule
                swept = sweep(step, data.train, SHORT, ONE_RANK, _quiet)
                assert len(swept.rates) == SHORT.num_updates
                assert state_digest(_everything(step)) == before
                assert step.schedule is schedule
            losses.append([*_train(step, batches, 5), state_digest(step.module.state_dict())])
        assert losses[0] == losses[1]
    finally:
        data.close()


def test_it_stops_where_the_loss_explodes_and_leaves_no_trace(image_folder, tmp_path):
    config = dataclasses.replace(
        short_config(image_folder, tmp_path, "synthetic"), optim=OptimConfig(learning_rate=0.1, clip_norm=0.0)
    )
    data = open_data(config, ONE_RANK, _quiet)
    try:
        step = build_step(config, ONE_RANK, data.num_classes, data.channels, len(data.train))
        before = state_digest(step.module.state_dict())
        settings = SweepSettings(1e-3, 1e6, 60, smoothing_updates=3)
        swept = sweep(step, data.train, settings, ONE_RANK, _quiet)
        assert 0 < len(swept.rates) < 60
        assert swept.ending.startswith("the loss was ")
        assert state_digest(step.module.state_dict()) == before
    finally:
        data.close()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rates_are_those_of_the_optimizers_updates(image_folder, tmp_path, accumulate):
    config = short_config(image_folder, tmp_path, "synthetic")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=accumulate))
    data = open_data(config, ONE_RANK, _quiet)
    try:
        step = build_step(config, ONE_RANK, data.num_classes, data.channels, len(data.train))
        used = []
        step.optimizer.register_step_pre_hook(
            lambda optimizer, *_: used.append({group["lr"] for group in optimizer.param_groups})
        )
        swept = sweep(step, data.train, SHORT, ONE_RANK, _quiet)
        assert used == [{rate} for rate in swept.rates] == [{SHORT.rate(update)} for update in range(12)]
    finally:
        data.close()


@pytest.mark.parametrize("loader", ["torchvision", "turbo", "resident", "synthetic"])
def test_it_runs_with_every_loader_over_as_many_epochs_as_it_takes(image_folder, tmp_path, loader):
    config = short_config(image_folder, tmp_path, loader)
    swept = find_learning_rates(config, ONE_RANK, SHORT, _quiet)
    assert len(swept.losses) == 12 > 2 * 5  # an epoch has five batches
    assert all(math.isfinite(loss) for loss in swept.losses)


def test_it_starts_from_the_weights_that_a_run_starts_from(image_folder, tmp_path, monkeypatch):
    """Those that come from the first training images, too, by the kernels that are asked for."""
    config = short_config(image_folder, tmp_path, model=ModelConfig("cifar_fast"))
    begun = []

    def keep(step, *rest):
        begun.append(state_digest(step.module.state_dict()))
        return sweep(step, *rest)

    order = []
    monkeypatch.setattr(learning_rate, "sweep", keep)
    for name, real in (("choose_kernels", choose_kernels), ("start_model", start_model)):
        noted = lambda *words, name=name, real=real, **more: order.append(name) or real(*words, **more)  # noqa: E731
        monkeypatch.setattr(learning_rate, name, noted)
    find_learning_rates(config, ONE_RANK, SHORT, _quiet)
    assert order == ["choose_kernels", "start_model"]
    data = open_data(config, ONE_RANK, _quiet)
    try:
        assert begun == [state_digest(start_model(config, data, ONE_RANK, _quiet, fresh=True).state_dict())]
    finally:
        data.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lowest_rate": 1.0, "highest_rate": 0.1}, "the sweep goes from 1.0 to 0.1: its end must be above its start"),
        ({"lowest_rate": 0.0}, "lowest_rate is 0.0: it must be above 0"),
        ({"highest_rate": float("nan")}, "its end must be above its start"),
        ({"num_updates": 5}, "num_updates is 5: it must be 10 or more"),
        ({"smoothing_updates": 0}, "smoothing_updates is 0: it must be 1 or more"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(settings, message):
    with pytest.raises(FeedrateError, match=message):
        SweepSettings(**settings)
