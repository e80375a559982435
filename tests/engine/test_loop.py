"""What the loop does around its steps."""

import dataclasses

import torch
from short_runs import run_to_end, short_config, start_from

from engine import loop
from engine.dist import Ranks
from engine.optimisation.average import AverageConfig
from engine.profiler.meter import Meter
from engine.profiler.resources import ResourceMeter
from engine.reporting import lines
from engine.reporting.display import Display
from engine.step import TrainStep


def test_every_epoch_is_warmed_up_at_its_own_size_before_its_clock_runs_also_one_gone_on_in(
    image_folder, tmp_path, monkeypatch
):
    warmed = []

    def warm_up(step, shape, num_classes):
        warmed.append(tuple(shape))
        return 0.25

    monkeypatch.setattr(TrainStep, "warm_up", warm_up)
    config = short_config(image_folder, tmp_path / "whole")
    data = dataclasses.replace(config.data, size_schedule=((0, 16), (1, 24)))
    config = dataclasses.replace(config, data=data, epochs=3)
    whole = run_to_end(config)
    assert warmed == [(7, 3, 16, 16), (7, 3, 24, 24), (7, 3, 24, 24)]
    warmed.clear()
    start_from(tmp_path / "whole" / "short", 7, tmp_path / "again" / "short")
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    assert run_to_end(again) == whole
    assert warmed == [(7, 3, 24, 24), (7, 3, 24, 24)]


def test_an_epochs_clock_runs_from_after_looking_at_all_processes_until_the_device_is_done(
    image_folder, tmp_path, monkeypatch
):
    happened = []

    def noted(name, call):
        def calling(*words, **more):
            happened.append(name)
            return call(*words, **more)

        return calling

    monkeypatch.setattr(loop, "ResourceMeter", noted("looked around", ResourceMeter))
    monkeypatch.setattr(loop, "Meter", noted("clock started", Meter))
    monkeypatch.setattr(TrainStep, "__call__", noted("step", TrainStep.__call__))
    monkeypatch.setattr(Ranks, "finish", noted("device done", Ranks.finish))
    monkeypatch.setattr(loop, "evaluate", noted("evaluation", loop.evaluate))
    config = short_config(image_folder, tmp_path, "synthetic")
    run_to_end(dataclasses.replace(config, epochs=1))
    assert happened == ["looked around", "clock started", *["step"] * 5, "device done", "evaluation", "device done"]


def test_a_cpu_is_done_when_its_call_returns_and_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    Ranks(0, 1, 0, 1, torch.device("cpu")).finish()
    assert waited == []
    Ranks(0, 1, 0, 1, torch.device("cuda", 0)).finish()
    assert waited == [torch.device("cuda", 0)]


def test_a_long_evaluation_says_how_far_it_is(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lines, "FIRST_LINE_S", 0.0)  # then even a short one is long
    config = short_config(image_folder, tmp_path, epochs=1)
    run_to_end(dataclasses.replace(config, average=AverageConfig(ema_decay=0.9)), Display(is_main=True))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluating")]
    assert [line.split(" of ")[0] for line in told] == ["evaluating: batch 1", "evaluating ema: batch 1"]
