"""How a run is put together."""

import dataclasses

import pytest
import torch
from short_runs import ONE_RANK, short_config
from torch import nn

from engine import build
from engine.augment import IMAGENET_CHANNELS
from engine.config import ExecutionConfig


class Stays(nn.Linear):
    """A model that no device takes away."""

    def to(self, *place, **how):
        return self


@pytest.mark.parametrize(
    ("device", "deterministic", "chooses"), [("cuda", False, True), ("cuda", True, False), ("cpu", False, False)]
)
def test_every_step_has_the_kernels_that_are_asked_for_whoever_builds_it(
    device, deterministic, chooses, tmp_path, monkeypatch
):
    """cuDNN tries its algorithms on CUDA unless the bits must be the same; a profile measures what training does."""
    asked = []
    monkeypatch.setattr(build, "use_deterministic_kernels", lambda: asked.append(True))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not chooses)
    for needs_the_device in ("Normalize", "TrainStep"):
        monkeypatch.setattr(build, needs_the_device, lambda *words, **more: None)
    execution = ExecutionConfig(device=device, deterministic=deterministic)
    config = dataclasses.replace(short_config(tmp_path, tmp_path), execution=execution)
    ranks = dataclasses.replace(ONE_RANK, device=torch.device(device))
    build.build_step(config, ranks, 2, IMAGENET_CHANNELS, 1, Stays(2, 2))
    assert torch.backends.cudnn.benchmark is chooses and bool(asked) is deterministic
