"""Blur before striding (Zhang, 2019, "Making Convolutional Networks Shift-Invariant Again"), as FFCV's ImageNet recipe
has it: in front of every convolution of stride 2 and more with at least 16 input channels, so not of the stem.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from loaders.errors import FeedrateError

from .mixed_in import mix_in

_MIN_CHANNELS = 16

if TYPE_CHECKING:
    _Convolution = nn.Conv2d
else:
    _Convolution = object


class _Blurs(_Convolution):
    """Put in front of a convolution's own class: its input is blurred by [1 2 1] × [1 2 1] / 16, padded with zeros."""

    blur: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        blurred = functional.conv2d(input, self.blur.to(input.dtype), padding=1, groups=self.in_channels)
        return super().forward(blurred)


def blur_strided_convolutions(model: nn.Module) -> None:
    """Make every convolution in `model` that strides blur its input first.

    Parameters and their names stay what they were, so weights fit with and without. Raises FeedrateError where there is
    no such convolution.
    """
    chosen = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.in_channels >= _MIN_CHANNELS
    ]
    if not chosen:
        raise FeedrateError(
            "blur_pool is on and the model has no convolution that strides and has 16 channels or more: leave it off"
        )
    for convolution in chosen:
        _blur(convolution)


def _blur(convolution: nn.Conv2d) -> None:
    row = torch.tensor([1.0, 2.0, 1.0], device=convolution.weight.device)
    kernel = torch.outer(row, row) / 16
    convolution.register_buffer("blur", kernel.repeat(convolution.in_channels, 1, 1, 1), persistent=False)
    mix_in(_Blurs, convolution, "Blurred")
