"""A run taken up from any batch ends with the bits of one that was never interrupted."""

import dataclasses

import numpy as np
import pytest
from short_runs import outcome, run_to_end, short_config, start_from

from loaders.api import FeedrateError

STEPS = 10


@pytest.mark.parametrize("loader", ["torchvision", "turbo", "synthetic"])
def test_resuming_at_any_batch_ends_with_the_same_bits_and_the_same_log(image_folder, tmp_path, loader):
    config = short_config(image_folder, tmp_path / "whole", loader)
    expected = run_to_end(config)
    assert expected["position"] == [2, 0]
    for step in range(1, STEPS):
        folder = tmp_path / f"from{step}"
        start_from(tmp_path / "whole" / "short", step, folder / "short")
        resumed = run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(folder))))
        assert resumed == expected, f"resumed after step {step}"


def test_a_run_may_be_resumed_twice_in_one_epoch(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    expected = run_to_end(config)
    first = tmp_path / "first"
    start_from(tmp_path / "whole" / "short", 1, first / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(first))))
    start_from(first / "short", 3, tmp_path / "second" / "short")
    second = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "second")))
    assert run_to_end(second) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_resumes_exactly_too(image_folder, tmp_path, precision):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, precision=precision))
    expected = run_to_end(config)
    start_from(tmp_path / "whole" / "short", 4, tmp_path / "again" / "short")
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    assert run_to_end(again) == expected


def test_the_number_of_workers_may_change_and_the_bits_stay(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    expected = run_to_end(config)
    start_from(tmp_path / "whole" / "short", 3, tmp_path / "again" / "short")
    again = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, workers=1),
        run=dataclasses.replace(config.run, folder=str(tmp_path / "again")),
    )
    assert run_to_end(again) == expected


def test_a_finished_run_started_again_changes_nothing(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    expected = run_to_end(config)
    assert run_to_end(config) == expected


def test_the_ids_trained_on_are_written_once_each_in_order(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, log_ids=True))
    run_to_end(config)
    expected = np.fromfile(tmp_path / "whole" / "short" / "ids-rank0.i64", dtype="<i8")
    assert len(expected) == STEPS * 7
    start_from(tmp_path / "whole" / "short", 3, tmp_path / "again" / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again"))))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "again" / "short" / "ids-rank0.i64", dtype="<i8"), expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loader": "synthetic"}, "pixels.loader"),
        ({"epochs": 3}, "config.epochs"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_name(image_folder, tmp_path, change, named):
    config = short_config(image_folder, tmp_path)
    config = dataclasses.replace(config, epochs=1)
    run_to_end(config)
    changed = dataclasses.replace(config, **change)
    with pytest.raises(FeedrateError, match=named):
        run_to_end(changed)
    before = outcome(tmp_path / "short")
    allowed = dataclasses.replace(
        changed, epochs=2, run=dataclasses.replace(changed.run, allow_change=(named, "config"))
    )
    run_to_end(allowed)
    assert outcome(tmp_path / "short") != before


def test_a_checkpoint_of_another_stream_is_refused_and_left_as_it_was(image_folder, tmp_path):
    config = dataclasses.replace(short_config(image_folder, tmp_path), epochs=1)
    before = run_to_end(config)
    with pytest.raises(FeedrateError, match="stream.seed was 3 and is 4"):
        run_to_end(dataclasses.replace(config, seed=4))
    assert run_to_end(config) == before


def test_never_resuming_refuses_a_folder_that_holds_a_run(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    run_to_end(config)
    with pytest.raises(FeedrateError, match="another --name"):
        run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, resume="never")))
