"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): every image takes in part of a partner's.

Partners come from the rows of the same rank, so which they are depends on the number of ranks; shares, kinds and
rectangles do not.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from .augment_config import AugmentConfig
from .draws import Floats, Ints, SampleDraws, on_device
from .rectangles import inside


class Mixing:
    """Mixes the normalised images of a batch, and their labels into soft targets."""

    def __init__(self, config: AugmentConfig, num_classes: int) -> None:
        self._config = config
        self._num_classes = num_classes
        both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
        self._cutmix_share = config.cutmix_share if both else float(config.cutmix_alpha > 0)

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, draws: SampleDraws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float [B, 3, H, W] images and int64 [B] labels to mixed images and float32 [B, classes] targets."""
        height, width = images.shape[2:]
        device = images.device
        own_share, boxes, target_share = self.shares(draws, height, width)
        partner = on_device(partners(draws), device)
        shares = on_device(np.stack([own_share, target_share]).astype(np.float32), device)
        others = images[partner]
        if self._cutmix_share < 1:
            share = shares[0, :, None, None, None]
            mixed = share * images + (1 - share) * others
        else:
            mixed = images
        if self._cutmix_share > 0:
            mixed = torch.where(inside(boxes, height, width, device), others, mixed)
        share = shares[1, :, None]
        return mixed, share * self._one_hot(labels) + (1 - share) * self._one_hot(labels[partner])

    def shares(self, draws: SampleDraws, height: int, width: int) -> tuple[Floats, Ints, Floats]:
        """On the host: the weight of an image's own pixels, the rectangle it takes from its partner, and the weight
        of its own label. float64 [B], int64 [B, 4], float64 [B].
        """
        config = self._config
        draws = draws.shared() if config.mix_each == "batch" else draws
        is_mixed = draws.uniform("mix") < config.mix_probability
        is_cut = is_mixed & (draws.uniform("mix by rectangle") < self._cutmix_share)
        own = np.where(is_mixed & ~is_cut, _beta(config.mixup_alpha, draws.uniform("mixup share")), 1.0)
        cut = np.where(is_cut, _beta(config.cutmix_alpha, draws.uniform("cutmix share")), 1.0)
        boxes = _boxes(cut, draws, height, width)
        kept = 1 - (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)
        return own, boxes, np.where(is_cut, kept, own)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels[:, None] == torch.arange(self._num_classes, device=labels.device)).to(torch.float32)


def partners(draws: SampleDraws) -> Ints:
    """int64 [B]: each row's partner, a permutation in which no row of two or more is its own: the next in an order
    drawn for the step."""
    order = np.argsort(draws.bits("mix partner"), kind="stable")
    partner = np.empty(len(order), dtype=np.int64)
    partner[order] = np.roll(order, -1)
    return partner


def _beta(alpha: float, uniform: Floats) -> Floats:
    """Beta(alpha, alpha) by its inverse distribution function; ones where alpha is 0."""
    if alpha == 0:
        return np.ones_like(uniform)
    from scipy.special import betaincinv  # here, since it takes half a second of every start

    shares: Floats = betaincinv(alpha, alpha, uniform)
    return shares


def _boxes(kept: Floats, draws: SampleDraws, height: int, width: int) -> NDArray[np.int64]:
    """A rectangle of the image's shape and 1 - kept of its area, around a uniform centre, cut at the border."""
    half = 0.5 * np.sqrt(1 - kept)
    half_height, half_width = (half * height).astype(np.int64), (half * width).astype(np.int64)
    row, column = draws.below(height, "cutmix row"), draws.below(width, "cutmix column")
    top, bottom = np.maximum(row - half_height, 0), np.minimum(row + half_height, height)
    left, right = np.maximum(column - half_width, 0), np.minimum(column + half_width, width)
    return np.stack([top, left, bottom, right], axis=1)
