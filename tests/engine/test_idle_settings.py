"""What a run is told of settings that do nothing in it."""

import pytest
from short_runs import ONE_RANK, short_config

from engine.build import build_run
from engine.command_line import PRESETS, load_preset
from engine.config import Config, DataConfig
from engine.idle_settings import idle_settings
from engine.optimisation.average import AverageConfig
from engine.optimisation.optim_config import OptimConfig
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest

RAMP = (128, 256, 2, 20)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"optim": OptimConfig(schedule="step", milestones=(4, 8, 12.5), warmup_epochs=1)},
            "the learning rate does not fall at epoch 8, 12.5: the run ends at epoch 8 (--optim.milestones)",
        ),
        (
            {"optim": OptimConfig(milestones=(4,))},
            "milestones are given and the schedule is cosine, which does not go by them; step does (--optim.schedule)",
        ),
        (
            {"optim": OptimConfig(schedule="onecycle", points=((0, 1), (8, 0)))},
            "points are given and the schedule is onecycle, which does not go by them; piecewise does"
            " (--optim.schedule)",
        ),
        (
            {"optim": OptimConfig(schedule="piecewise", points=((0, 0.1), (2, 1), (16, 0)))},
            "the points of the learning rate go to epoch 16 and the run ends at epoch 8, before the rate comes to"
            " 0 of the peak (--optim.points)",
        ),
        (
            {"optim": OptimConfig(schedule="piecewise", points=((0, 1), (5, 0)))},
            "the points of the learning rate end with 0 at epoch 5: in the 3 epochs after it nothing is learnt"
            " (--optim.points)",
        ),
        (
            {"optim": OptimConfig(frozen_epochs=(("a*", 0, 2), ("b*", 8, -1), ("c*", 9, 9)))},
            "nothing begins to rest at epoch 8: the run ends at epoch 8 (--optim.frozen-epochs)",
        ),
        (
            {"data": DataConfig(size_schedule=((0, 32), (7, 48), (8, 64)))},
            "images do not change their size at epoch 8: the run ends at epoch 8 (--data.size-schedule)",
        ),
        (
            {"data": DataConfig(size_ramp=RAMP)},
            "images do not change their size at epoch 9, 14, 18: the run ends at epoch 8 (--data.size-ramp)",
        ),
        (
            {"optim": OptimConfig(learning_rate=0.001), "average": AverageConfig(swa_start_epoch=6)},
            "from epoch 6, counted from 0, the learning rate is SWA's, 0.05, which is above the peak before, 0.001"
            " (--average.swa-learning-rate)",
        ),
    ],
)
def test_what_does_nothing_in_a_run_is_told(settings, told):
    assert list(idle_settings(Config(epochs=8, **settings))) == [f"warning: {told}"]


@pytest.mark.parametrize(
    "settings",
    [
        {"optim": OptimConfig(schedule="step", milestones=(4, 7.9), warmup_epochs=1)},
        {"optim": OptimConfig(schedule="piecewise", points=((0, 0.1), (2, 1), (8, 0)))},
        {"optim": OptimConfig(schedule="piecewise", points=((0, 1), (5, 0.1)))},
        # SWA's rate takes its place
        {
            "optim": OptimConfig(schedule="piecewise", points=((0, 1), (16, 0))),
            "average": AverageConfig(swa_start_epoch=6),
        },
        {"optim": OptimConfig(frozen_epochs=(("*", 7, -1),))},
    ],
)
def test_nothing_is_told_of_what_does_something(settings):
    assert not list(idle_settings(Config(epochs=8, **settings)))


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_no_preset_has_any(name):
    assert not list(idle_settings(load_preset(name)))


def test_a_run_says_so_at_its_start(image_folder, tmp_path):
    said, display, stop = [], Display(is_main=False), StopRequest()
    display.say = said.append
    config = short_config(image_folder, tmp_path, optim=OptimConfig(milestones=(1,)))
    try:
        with build_run(config, ONE_RANK, display, stop):
            pass
    finally:
        stop.restore()
    assert sum(line.startswith("warning: milestones are given and the schedule is cosine") for line in said) == 1
