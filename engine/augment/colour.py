"""Colour operations on whole batches, with a strength for each image.

torchvision's functionals take one strength a call. These are the same formulas with a column of strengths: float32
[B, 1, 1, 1] beside float32 [B, 3, H, W] images of 0-255, values in between not rounded.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from .augment_config import AugmentConfig
from .draws import SampleDraws, on_device

_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114  # ITU-R 601-2, as torchvision has it


def grey(images: torch.Tensor) -> torch.Tensor:
    """[B, 1, H, W]: the brightness of each pixel."""
    red, green, blue = images.unbind(1)
    return (_RED * red + _GREEN * green + _BLUE * blue)[:, None]


def brightness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """0 is black, 1 the image."""
    return (images * factors).clamp_(0, 255)


def contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """0 is the mean grey of the image, 1 the image."""
    return _blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """0 is grey, 1 the image."""
    return _blend(images, grey(images), factors)


def sharpness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """0 is smoothed, 1 the image; its outermost pixels stay."""
    if min(images.shape[2:]) <= 2:
        return images
    middle = images[:, :, 1:-1, 1:-1]
    # nine ones and four more in the middle, of 13: the sum of 3 × 3 is nine times its mean
    smooth = ((9 * functional.avg_pool2d(images, 3, stride=1) + 4 * middle) / 13).round_()
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = _blend(middle, smooth, factors)
    return result


def hue(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Turn hues by `shifts` of the colour circle."""
    red, green, blue = images.unbind(1)
    most, least = images.amax(dim=1), images.amin(dim=1)
    spread = most - least
    divisor = torch.where(spread == 0, torch.ones_like(spread), spread)
    sixths = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixths = sixths + 6 * shifts[:, 0]
    # back: a channel is `most`, less the spread where the hue is far from it (the formula of HSV with one clamp)
    channels = []
    for offset in (5, 3, 1):
        k = (sixths + offset).remainder_(6)
        channels.append(most - spread * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)


def _blend(images: torch.Tensor, others: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return (images * factors + others * (1 - factors)).clamp_(0, 255)


class ColourJitter:
    """Brightness, contrast, saturation and hue of each image by strengths of its own, rounded once at the end."""

    def __init__(self, config: AugmentConfig) -> None:
        self._probability = config.jitter_probability
        by_factor: dict[str, tuple[float, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
            "brightness": (config.brightness, brightness),
            "contrast": (config.contrast, contrast),
            "saturation": (config.saturation, saturation),
        }
        # name: what leaves an image as it is, lowest and highest strength, operation
        self._operations = {
            name: (1.0, max(0.0, 1 - strength), 1 + strength, operation)
            for name, (strength, operation) in by_factor.items()
            if strength > 0
        }
        if config.hue > 0:
            self._operations["hue"] = (0.0, -config.hue, config.hue, hue)

    def __call__(self, images: torch.Tensor, draws: SampleDraws) -> torch.Tensor:
        """uint8 [B, 3, H, W] to the same."""
        shared = draws.shared()
        order = sorted(self._operations, key=lambda name: int(shared.bits(f"order of {name}")[0]))
        is_jittered = draws.uniform("jitter") < self._probability
        strengths = []
        for name in order:
            neutral, low, high, _ = self._operations[name]
            strengths.append(np.where(is_jittered, draws.between(low, high, name), neutral))
        columns = on_device(np.stack(strengths).astype(np.float32), images.device)[..., None, None, None]
        values = images.to(torch.float32)
        for name, column in zip(order, columns, strict=True):
            values = self._operations[name][3](values, column)
        return values.round_().to(torch.uint8)
