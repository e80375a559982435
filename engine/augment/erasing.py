"""Random erasing (Zhong et al. 2020), with torchvision's choice of rectangles."""

import numpy as np
import torch
from numpy.typing import NDArray

from .augment_config import AugmentConfig
from .draws import SampleDraws, on_device
from .rectangles import inside

_ATTEMPTS = 10  # torchvision's: a rectangle that does not fit is drawn anew, ten times at most


class Erasing:
    """Blanks a rectangle of some images, after normalisation, where 0 is the mean."""

    def __init__(self, config: AugmentConfig) -> None:
        self._probability = config.erase_probability
        self._area = config.erase_area
        self._ratio = config.erase_ratio
        self._fill = {"mean": _mean, "colour": _colour}[config.erase_fill]

    def __call__(self, images: torch.Tensor, draws: SampleDraws) -> torch.Tensor:
        """float [B, 3, H, W], as many again, in new memory."""
        height, width = images.shape[2:]
        mask = inside(self.boxes(draws, height, width), height, width, images.device)
        return torch.where(mask, self._fill(draws, images), images)

    def boxes(self, draws: SampleDraws, height: int, width: int) -> NDArray[np.int64]:
        """int64 [B, 4] (top, left, bottom, right) on the host; empty where nothing is erased."""
        boxes = np.zeros((len(draws), 4), dtype=np.int64)
        waiting = draws.uniform("erase") < self._probability
        for attempt in range(_ATTEMPTS):
            area = draws.between(*self._area, f"erase area {attempt}") * (height * width)
            ratio = np.exp(draws.between(np.log(self._ratio[0]), np.log(self._ratio[1]), f"erase ratio {attempt}"))
            tall = np.rint(np.sqrt(area * ratio)).astype(np.int64)
            wide = np.rint(np.sqrt(area / ratio)).astype(np.int64)
            fits = waiting & (tall < height) & (wide < width)
            top = np.floor(draws.uniform("erase top") * (height - tall + 1)).astype(np.int64)
            left = np.floor(draws.uniform("erase left") * (width - wide + 1)).astype(np.int64)
            boxes[fits] = np.stack([top, left, top + tall, left + wide], axis=1)[fits]
            waiting &= ~fits
            if not waiting.any():
                break
        return boxes


def _mean(draws: SampleDraws, images: torch.Tensor) -> torch.Tensor:
    return images.new_zeros(())


def _colour(draws: SampleDraws, images: torch.Tensor) -> torch.Tensor:
    """[B, 3, 1, 1], normally distributed."""
    from scipy.special import ndtri  # here, since it takes half a second of every start

    channels = [ndtri(draws.uniform(f"erase colour {channel}")) for channel in range(3)]
    return on_device(np.stack(channels, axis=1).astype(np.float32), images.device)[:, :, None, None].to(images.dtype)
