"""A few steps of a small net with any optimizer, and a checkpoint in the middle of them."""

import io

import torch
from short_runs import state_digest
from torch import nn

from engine.optimisation.optim import build_optimizer
from engine.optimisation.optim_config import OptimConfig


def small_net() -> nn.Module:
    """Convolution, norm and two layers; the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 8), nn.Linear(8, 5)
    ).to(memory_format=torch.channels_last)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range | list[int]) -> None:
    """Train on batches that depend on the step's number alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images, labels = torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 5
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (step + 1) * group.get("lr_scale", 1.0)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def refuse_unless_it_resumes(name: str) -> None:
    """Nine steps with the optimizer `name`, and the same with a checkpoint after the fourth: all bits are equal."""
    config = OptimConfig(name=name, learning_rate=0.01)
    whole = small_net()
    optimizer = build_optimizer(config, whole)
    initial = state_digest(whole.state_dict())
    train(whole, optimizer, range(4))
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(whole, optimizer, range(4, 9))
    resumed = small_net()
    content = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed.load_state_dict(content["model"])
    again = build_optimizer(config, resumed)
    again.load_state_dict(content["optimizer"])
    train(resumed, again, range(4, 9))
    assert state_digest(resumed.state_dict()) == state_digest(whole.state_dict()) != initial
    assert state_digest(again.state_dict()) == state_digest(optimizer.state_dict())
