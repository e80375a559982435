"""A model by name.

torchvision is imported where it is needed: that takes seconds, and bad input is told before.
"""

from collections.abc import Callable

import torch
from torch import nn

from loaders.errors import FeedrateError, did_you_mean

from .cifar_resnet import CifarResNet

_CIFAR_DEPTHS = {f"cifar_resnet{depth}": depth for depth in (20, 32, 56)}


def model_names() -> list[str]:
    """What `build_model` knows."""
    from torchvision import models

    torchvision_resnets = [
        name for name in models.list_models(module=models) if name.startswith(("resnet", "resnext", "wide_resnet"))
    ]
    return sorted(torchvision_resnets) + list(_CIFAR_DEPTHS)


def build_model(name: str, num_classes: int, seed: int) -> nn.Module:
    """The model, its weights drawn from `seed` alone. Raises FeedrateError for a name that is not known."""
    known = model_names()
    if name not in known:
        raise FeedrateError(f"unknown model '{name}': {did_you_mean(name, known)}known are {', '.join(known)}")
    from torchvision import models

    torch.manual_seed(seed)
    if name in _CIFAR_DEPTHS:
        return CifarResNet(_CIFAR_DEPTHS[name], num_classes)
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder(weights=None, num_classes=num_classes)
