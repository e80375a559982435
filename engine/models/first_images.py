"""Weights that come from the first training images."""

from contextlib import closing

import torch
from torch import nn

from loaders.api import Loader
from loaders.records import ChannelStatistics

from ..augment import Normalize
from ..dist import Ranks
from .cifar_fast import CifarFast, patch_moments, whitening_filters


def start_from_images(model: nn.Module, train: Loader, channels: ChannelStatistics, ranks: Ranks) -> None:
    """Show a model that takes weights from training images the first global batch of epoch 0; leave others alone.

    Every rank gives its part of the batch and all get the same weights. Called before anything copies the model.
    """
    if not isinstance(model, CifarFast):
        return
    normalize = Normalize(channels, ranks.device, channels_last=False)
    with closing(train.epoch(0)) as batches:
        images = normalize(next(iter(batches)).images.to(ranks.device))
    outer_products, count = patch_moments(images)
    filters = whitening_filters(ranks.sum(outer_products), ranks.sum(count))
    # decompositions on unlike processors may differ in their last bits: all take the main rank's
    model.whiten_with(ranks.sum(filters if ranks.is_main else torch.zeros_like(filters)))
