"""`tools/plot.py` as a user calls it, and what its pictures show."""

from dataclasses import replace

import pytest
from commands import REPOSITORY, python
from short_runs import ONE_RANK, short_config

from engine.augment import IMAGENET_CHANNELS
from engine.build import build_step
from engine.command_line import parse_config
from engine.config import AverageConfig
from engine.optimisation.schedule import build_schedule
from tools import plot
from tools.plots import schedule

PLOT = str(REPOSITORY / "tools" / "plot.py")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_the_schedule_is_drawn_from_any_folder_without_data(tmp_path):
    done = python(PLOT, "schedule", "--config", "cifar10_resnet20", "--run.folder", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "mine" / "cifar10_resnet20" / "schedule.png"
    assert path.read_bytes().startswith(PNG_SIGNATURE)
    assert done.stdout == "written to mine/cifar10_resnet20/schedule.png\n"


def test_who_interrupts_it_finds_no_half_picture(tmp_path, monkeypatch, capfd):
    from matplotlib.figure import Figure

    def interrupt(figure, file, **_):
        file.write(PNG_SIGNATURE)
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupt)
    assert plot.main(["schedule", "--config", "cifar10_resnet20", "--out", str(tmp_path / "a.png")]) == 130
    assert capfd.readouterr().err == "interrupted: nothing was written\n" and list(tmp_path.iterdir()) == []


def test_the_curve_is_the_schedule_of_every_step_against_the_epoch():
    config = parse_config(["--optim.schedule", "step", "--optim.milestones", "3", "4.5", "--epochs", "6"])
    [curve] = schedule.figure_of(config, 10).axes[0].lines
    rate = build_schedule(config.optim, 6, 10)
    assert list(curve.get_xdata()) == [step / 10 for step in range(60)]
    assert list(curve.get_ydata()) == [rate(step) for step in range(60)]


def test_the_curve_is_the_rate_that_a_run_trains_by_with_averages_and_accumulation(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, average=AverageConfig(swa_start_epoch=1, swa_learning_rate=0.3))
    config = replace(config, optim=replace(config.optim, accumulate=2))
    figure = schedule.figure_of(config, 5)
    [curve] = figure.axes[0].lines
    step = build_step(config, ONE_RANK, 3, IMAGENET_CHANNELS, 5)
    assert list(curve.get_ydata()) == [step.learning_rate(number) for number in range(10)]
    assert list(curve.get_ydata())[5:] == [0.3] * 5
    assert figure.axes[0].get_title() == "short: cosine, SWA's from epoch 1 on"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no plot '': known are"),
        (["shedule"], "no plot 'shedule': did you mean schedule?"),
        (["schedule", "--steps-per-epoch", "0"], "--steps-per-epoch is 0: it must be 1 or more"),
        (["schedule", "--steps-per-epoch", "many"], "invalid int value: 'many'"),
        (["schedule", "--step-per-epoch", "9"], "unknown option --step-per-epoch: did you mean --steps-per-epoch"),
        (["schedule", "--out", "/proc/nowhere/x.png"], "/proc/nowhere/x.png cannot be written (No such file or "),
    ],
)
def test_a_bad_word_gives_one_sentence_and_status_2(arguments, message, capsys):
    assert plot.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
