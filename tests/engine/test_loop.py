"""What the loop does around its steps."""

import dataclasses

from short_runs import run_to_end, short_config, start_from

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
