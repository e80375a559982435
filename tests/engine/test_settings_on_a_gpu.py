"""Every kind of setting on a GPU: what the CPU computes, and a host that waits for no single batch.

Where there is no GPU, one in name stands for it, and only that one counts what is waited for.
"""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from devices import CPU, on_each_gpu
from nominal_cuda import entered
from short_runs import ranks_on, run_to_end, short_config

from engine.config import Config

# several to a run, so that all of them take no more than half a minute
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "sgd, averages, mixing": {
        "optim": {
            "nesterov": True,
            "clip_value": 0.01,
            "clip_norm": 0.5,
            "accumulate": 2,
            "lookahead_every_updates": 2,
        },
        "average": {"ema_decay": 0.9, "swa_start_epoch": 0, "swa_statistics_batches": 2},
        "augment": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "mix_each": "sample", "mix_probability": 0.8},
        "data": {"eval_flip": True, "normalize": "half", "on_bad": "substitute"},
    },
    "adamw, colours, small and large": {
        "optim": {"name": "adamw", "learning_rate": 1e-3, "rate_factors": (("*.bias", 3.0),), "schedule": "plateau"},
        "augment": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1, "policy": "trivial"},
        "data": {"size_schedule": ((0, 12), (1, 16)), "sampling": "balanced"},
        "run": {"tensorboard_images": 4, "tensorboard_histograms": True, "log_ids": True},
    },
    "muon, erasing, mirrored and shifted answers": {
        "optim": {"name": "muon", "frozen_epochs": (("*.bias", 1, 2),)},
        "augment": {"erase_probability": 0.5, "erase_fill": "colour", "shift_px": 2, "policy": "rand"},
        "data": {"eval_flip": True, "eval_shift_px": 1},
        "execution": {"channels_last": False},
    },
    "lars, whitened": {
        "optim": {"name": "lars", "momentum": 0.85},
        "model": {"name": "cifar_fast"},
        "augment": {"cutmix_alpha": 1.0},
        "data": {"size_px": 32, "eval_size_px": 32, "eval_resize_px": 32},
    },
    "rmsprop, blurred, recomputed": {
        "optim": {"name": "rmsprop", "learning_rate": 1e-3},
        "model": {"blur_pool": True},
        "execution": {"checkpoint_activations": True},
        "average": {"ema_decay": 0.9, "ema_every_updates": 2},
    },
    "views, dropped paths": {
        "data": {"views": 2, "batch_size": 8},
        "model": {"name": "timm/resnet10t", "drop_path": 0.2},
    },
    "bf16": {"execution": {"precision": "bf16"}},
    "fp16": {"execution": {"precision": "fp16"}, "optim": {"accumulate": 2}},
}


def config_for(changes: dict[str, dict[str, Any]], images: Path, folder: Path, device: torch.device) -> Config:
    """Two epochs without a log line or a checkpoint between their ends."""
    config = short_config(images, folder)
    quiet = {"log_every_steps": 1000, "checkpoint_every_steps": 0, "checkpoint_every_epochs": 0, "best_metric": "none"}
    for part, fields in [("run", quiet), ("execution", {"device": device.type}), *changes.items()]:
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **fields)})
    return config


def losses_and_waits(config: Config, device: torch.device) -> tuple[list[float], Counter[str]]:
    """The losses of all epochs, of training and of every evaluation; what made the host wait for a GPU in name, and
    how often."""
    gpu = entered()
    if gpu is not None:
        gpu.waited.clear()
    metrics = run_to_end(config, ranks=ranks_on(device))["metrics"]
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    assert len(epochs) == 2
    waited = Counter(gpu.waited if gpu is not None else ())
    if config.execution.precision == "fp16":  # once an update torch's GradScaler looks whether gradients overflowed
        waited["TensorBase.item"] -= 2 * math.ceil(epochs[0]["num_steps"] / config.optim.accumulate)
    return [value for line in epochs for name, value in sorted(line.items()) if name.endswith("loss")], waited


@on_each_gpu
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_losses_are_those_of_the_cpu_and_no_single_batch_is_waited_for(settings, device, image_folder, tmp_path):
    config = config_for(settings, image_folder, tmp_path / "gpu", device)
    found, waited = losses_and_waits(config, device)
    expected, _ = losses_and_waits(config_for(settings, image_folder, tmp_path / "cpu", CPU), CPU)
    if entered() is None:
        assert found == pytest.approx(expected, rel=0.3)  # sums in another order, which training lets grow
        return
    assert found == pytest.approx(expected, rel=1e-4)  # of several optimizers torch updates tensors together there
    halved = dataclasses.replace(config.data, batch_size=config.data.batch_size // 2)
    assert losses_and_waits(dataclasses.replace(config, name="halved", data=halved), device)[1] == waited
