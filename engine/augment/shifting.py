"""Shifts by whole pixels, with what comes in at a border mirrored from what is there."""

import torch

from .augment_config import AugmentConfig
from .draws import SampleDraws, on_device


class Shifting:
    """Moves every image by up to `shift_px` in both directions, each distance as likely as any other."""

    def __init__(self, config: AugmentConfig) -> None:
        self._most = config.shift_px

    def __call__(self, images: torch.Tensor, draws: SampleDraws) -> torch.Tensor:
        """uint8 [B, 3, H, W], as many again, in new memory and channels-last. `shift_px` must be below H and W."""
        height, width = images.shape[2:]
        down, right = (draws.below(2 * self._most + 1, f"shift {name}") - self._most for name in ("down", "right"))
        lines = _mirrored(on_device(down, images.device), height)
        columns = _mirrored(on_device(right, images.device), width)
        rows = torch.arange(len(images), device=images.device)
        shifted = images.permute(0, 2, 3, 1)[rows[:, None, None], lines[:, :, None], columns[:, None]]
        return shifted.permute(0, 3, 1, 2)


def _mirrored(shifts: torch.Tensor, side: int) -> torch.Tensor:
    """int64 [B, side]: which place each place shows once all have moved; the border pixel itself is shown once."""
    places = torch.arange(side, device=shifts.device) - shifts[:, None]
    last = side - 1
    return last - (last - places.abs()).abs()
