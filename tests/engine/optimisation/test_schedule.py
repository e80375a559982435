"""Every schedule against torch's own where it has one, else against the formula of whoever described it."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from engine.optimisation.optim_config import OptimConfig
from engine.optimisation.schedule import build_schedule, short_of_peak
from loaders.errors import FeedrateError

PEAK = 0.4


def _optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)


def _rates(optimizer, scheduler, total):
    rates = []
    for step in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < total:
            scheduler.step()
    return rates


@pytest.mark.parametrize("total", [(1, 7), (3, 50), (16, 11)])
@pytest.mark.parametrize("rise_share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize(("start_divisor", "final_divisor"), [(25.0, 1e4), (4.0, 50.0)])
def test_onecycle_is_torchs(total, rise_share, start_divisor, final_divisor):
    epochs, steps = total
    config = OptimConfig(
        learning_rate=PEAK,
        schedule="onecycle",
        rise_share=rise_share,
        start_divisor=start_divisor,
        final_divisor=final_divisor,
    )
    schedule = build_schedule(config, epochs, steps)
    optimizer = _optimizer()
    reference = lr_scheduler.OneCycleLR(
        optimizer,
        PEAK,
        total_steps=epochs * steps,
        pct_start=rise_share,
        cycle_momentum=False,
        div_factor=start_divisor,
        final_div_factor=final_divisor,
    )
    expected = _rates(optimizer, reference, epochs * steps)
    assert [schedule(step) for step in range(epochs * steps)] == pytest.approx(expected, rel=1e-9)


AFTER_WARM_UP = {
    "constant": ({}, lambda optimizer, steps: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
    "plateau": ({}, lambda optimizer, steps: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
    "linear": ({}, lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)),
    "linear to a share": (
        {"final_share": 0.2},
        lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.2, total_iters=steps),
    ),
    "cosine": ({}, lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)),
    "cosine to a share": (
        {"final_share": 0.1},
        lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.1 * PEAK),
    ),
    "polynomial": ({}, lambda optimizer, steps: lr_scheduler.PolynomialLR(optimizer, steps, power=2.0)),
    "polynomial of another power": (
        {"power": 0.9},
        lambda optimizer, steps: lr_scheduler.PolynomialLR(optimizer, steps, power=0.9),
    ),
}


@pytest.mark.parametrize("warmup_epochs", [0, 1, 2.5])
@pytest.mark.parametrize("case", AFTER_WARM_UP)
def test_the_schedule_is_torchs_after_torchs_linear_warm_up(case, warmup_epochs):
    epochs, steps = 8, 12
    settings, make = AFTER_WARM_UP[case]
    warmup = round(warmup_epochs * steps)
    config = OptimConfig(learning_rate=PEAK, schedule=case.split()[0], warmup_epochs=warmup_epochs, **settings)
    optimizer = _optimizer()
    reference = make(optimizer, epochs * steps - warmup)
    if warmup:
        rising = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=warmup - 1)
        reference = lr_scheduler.SequentialLR(optimizer, [rising, reference], milestones=[warmup])
    expected = _rates(optimizer, reference, epochs * steps)
    schedule = build_schedule(config, epochs, steps)
    assert [schedule(step) for step in range(epochs * steps)] == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_step_is_torchs_multistep_with_milestones_counted_from_the_first_step():
    config = OptimConfig(
        learning_rate=PEAK, schedule="step", warmup_epochs=0, milestones=(2, 4.5, 7), milestone_factor=0.3
    )
    optimizer = _optimizer()
    reference = lr_scheduler.MultiStepLR(optimizer, milestones=[20, 45, 70], gamma=0.3)
    expected = _rates(optimizer, reference, 80)
    schedule = build_schedule(config, 8, 10)
    assert [schedule(step) for step in range(80)] == pytest.approx(expected, rel=1e-12)
    warmed = build_schedule(
        OptimConfig(learning_rate=PEAK, schedule="step", warmup_epochs=1, milestones=(2,), milestone_factor=0.3), 8, 10
    )
    assert [warmed(step) for step in (0, 9, 19)] == pytest.approx([PEAK / 10, PEAK, PEAK])
    assert warmed(20) == pytest.approx(0.3 * PEAK)


@pytest.mark.parametrize(("epochs", "steps", "peak_epoch"), [(16, 312, 2), (24, 98, 5)])
def test_piecewise_is_ffcvs_interpolation_an_iteration(epochs, steps, peak_epoch):
    """As ffcv-imagenet's train_imagenet.py does it: np.interp over epochs, and over the iterations of each."""

    def rate_of_epoch(epoch):
        return np.interp([epoch], [0, peak_epoch, epochs], [1e-4 * PEAK, PEAK, 0])[0]

    expected = []
    for epoch in range(epochs):
        ends = [rate_of_epoch(epoch), rate_of_epoch(epoch + 1)]
        expected += list(np.interp(np.arange(steps), [0, steps], ends))
    points = ((0.0, 1e-4), (float(peak_epoch), 1.0), (float(epochs), 0.0))
    schedule = build_schedule(OptimConfig(learning_rate=PEAK, schedule="piecewise", points=points), epochs, steps)
    assert [schedule(step) for step in range(epochs * steps)] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_piecewise_is_level_outside_its_points():
    config = OptimConfig(learning_rate=1.0, schedule="piecewise", points=((1.0, 0.5), (2.0, 1.0)))
    schedule = build_schedule(config, 4, 10)
    assert [schedule(step) for step in (0, 10, 15, 20, 39)] == [0.5, 0.5, 0.75, 1.0, 1.0]


def test_cosine_rises_linearly_then_falls_towards_zero():
    schedule = build_schedule(OptimConfig(learning_rate=1.0, schedule="cosine", warmup_epochs=2), 10, 100)
    assert schedule(0) == pytest.approx(1 / 200)
    assert schedule(99) == pytest.approx(0.5)
    assert schedule(199) == schedule(200) == pytest.approx(1.0)
    assert schedule(600) == pytest.approx(0.5)  # halfway down
    assert 0 < schedule(999) < 1e-4


def test_no_warm_up_starts_at_the_peak():
    assert build_schedule(OptimConfig(learning_rate=0.3, warmup_epochs=0), 2, 10)(0) == pytest.approx(0.3)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize(("warmup_epochs", "steps"), [(0.5, 3), (0.3, 5), (1.5, 7), (0.1, 4)])
def test_a_warm_up_that_ends_within_an_update_does_not_rise_above_the_peak(schedule, warmup_epochs, steps):
    config = OptimConfig(learning_rate=PEAK, schedule=schedule, warmup_epochs=warmup_epochs, milestones=(3,))
    rates = list(map(build_schedule(config, 4, steps), range(4 * steps)))
    last_rising = int(warmup_epochs * steps)
    assert max(rates) == rates[last_rising] <= PEAK and rates[: last_rising + 1] == sorted(rates[: last_rising + 1])


def test_a_warm_up_longer_than_the_run_only_rises():
    schedule = build_schedule(OptimConfig(learning_rate=1.0, warmup_epochs=4), 2, 10)
    assert [schedule(step) for step in range(20)] == pytest.approx([(step + 1) / 40 for step in range(20)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "step"}, "--optim.milestones must name the epochs"),
        ({"schedule": "step", "milestones": (9.0, 3.0)}, "they must be rising epochs"),
        ({"schedule": "step", "milestones": (1.0,), "warmup_epochs": 2.0}, "after the 2.0 of warm-up"),
        ({"schedule": "piecewise"}, "--optim.points must give pairs"),
        ({"points": ((0.0, 1.0), (0.0, 2.0))}, "epochs rising from 0 on"),
        ({"points": ((0.0, -1.0),)}, "no share below 0"),
        ({"points": ((float("nan"), 1.0),)}, "epochs rising from 0 on"),
        ({"points": ((0.0, float("inf")), (2.0, 1.0))}, "all of them finite"),
        ({"schedule": "step", "milestones": (3.0, float("inf"))}, "they must be rising epochs"),
        ({"learning_rate": float("inf")}, "learning_rate is inf: it must be a finite number"),
        ({"weight_decay": float("inf")}, "weight_decay is inf: it must be a finite number"),
        ({"warmup_epochs": float("inf")}, "warmup_epochs is inf: it must be a finite number"),
        ({"final_share": 1.5}, "final_share is 1.5: it must lie between 0 and 1"),
        ({"start_divisor": 0.0}, "start_divisor is 0.0: it must be above 0"),
        ({"milestone_factor": 0.0}, "milestone_factor is 0.0: it must be above 0"),
        ({"plateau_factor": 1.0}, "plateau_factor is 1.0: it must lie between 0 and 1"),
        ({"plateau_patience": -1}, "plateau_patience is -1: it must be 0 or more"),
        ({"plateau_minimum": 1.0, "learning_rate": 0.1}, "must not be above the learning_rate, 0.1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_sentence(settings, message):
    with pytest.raises(FeedrateError) as error:
        OptimConfig(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_warm_up_that_the_run_does_not_outlast_is_told_with_both_numbers(schedule):
    config = OptimConfig(schedule=schedule, warmup_epochs=5.0, learning_rate=0.4)
    told = short_of_peak(config, num_epochs=2)
    rate = build_schedule(config, 2, 10)(19)  # of the last step
    assert rate == pytest.approx(0.16) and told == (
        "warning: the warm-up of 5 epochs takes all 2 of this run: the learning rate rises to its end, to 0.16 where"
        " the peak is 0.4 (--optim.warmup-epochs)"
    )
    assert short_of_peak(config, num_epochs=5) is not None and short_of_peak(config, num_epochs=6) is None


@pytest.mark.parametrize(("schedule", "epochs"), [("constant", 1.9), ("onecycle", 5.0), ("piecewise", 5.0)])
def test_nothing_is_told_where_it_ends_in_time_or_there_is_none(schedule, epochs):
    points = ((0.0, 0.1), (1.0, 1.0)) if schedule == "piecewise" else ()
    config = OptimConfig(schedule=schedule, warmup_epochs=epochs, points=points)
    assert short_of_peak(config, num_epochs=2) is None
