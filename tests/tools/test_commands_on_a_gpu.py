"""The commands where torch sees a GPU, or one in name: they take it, and say so."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import REPOSITORY, run, short_options
from devices import on_each_gpu
from short_runs import ranks_on, short_config

from engine.finders.batch_size import find_batch_size
from engine.finders.learning_rate import SweepSettings, find_learning_rates

HERE = [] if torch.cuda.is_available() else [str(REPOSITORY / "tests" / "nominal_command.py")]
of_whichever_gpu = pytest.mark.gpu if torch.cuda.is_available() else lambda test: test


def told(*command: str) -> str:
    """What a command prints that takes whatever device there is."""
    ended = run([sys.executable, *HERE, *command])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def epochs_of(run_folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def options(images: Path, folder: Path) -> list[str]:
    return short_options(images, folder, **{"execution.device": "auto"})


@of_whichever_gpu
def test_a_run_goes_on_from_a_checkpoint_and_is_evaluated(image_folder, tmp_path):
    words = options(image_folder, tmp_path)
    first = told("engine/train.py", *words)
    assert "on 1 × cuda" in first and "GPU " in first
    (run_folder,) = (path.parent for path in tmp_path.rglob("metrics.jsonl"))
    epochs = epochs_of(run_folder)
    assert all(line["resources"]["gpu_memory_bytes"] > 0 for line in epochs)
    for path in sorted((run_folder / "checkpoints").glob("step-*.pt"))[1:]:
        path.unlink()
    again = told("engine/train.py", *words)
    assert "going on in epoch 1 of 3 after batch 1 of 6" in again
    after = epochs_of(run_folder)
    if HERE:  # on a GPU kernels may differ in their last bits
        assert [one["eval_loss"] for one in after] == [one["eval_loss"] for one in epochs]
    assert f"top-1 {100 * after[-1]['eval_top1']:.2f}%" in told("tools/evaluate.py", str(run_folder))


@on_each_gpu
def test_a_learning_rate_is_found(device, image_folder, tmp_path):
    settings = SweepSettings(num_updates=20)
    swept = find_learning_rates(short_config(image_folder, tmp_path), ranks_on(device), settings, lambda _: None)
    assert len(swept.losses) == 20


@on_each_gpu
def test_a_batch_size_is_found_in_the_memory_of_the_device(device, image_folder, tmp_path):
    found = find_batch_size(short_config(image_folder, tmp_path), ranks_on(device), None, 1, lambda _: None)
    assert found.num_images == 37 and found.peak_bytes > 0


@of_whichever_gpu
def test_a_profile_tells_the_time_of_the_device_and_predicts(image_folder, tmp_path):
    report = told("tools/profile.py", *options(image_folder, tmp_path), "--minutes", "0.1", "--rounds", "3")
    assert "forward " in report and " device " in report and "copied to the device" in report
    assert "What if" in report and "on cuda" in report
