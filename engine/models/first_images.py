"""Weights that come from the first training images."""

from contextlib import closing

import torch
from torch import nn

from loaders.api import Loader
from loaders.records import ChannelStatistics

from ..augment import Normalize
from ..dist import Ranks
from .cifar_fast import CifarFast, patch_moments, whitening_filters

_ENOUGH_IMAGES = 5_000  # as airbench takes


def start_from_images(model: nn.Module, train: Loader, channels: ChannelStatistics, ranks: Ranks) -> None:
    """Show a model that takes weights from training images the first global batches of epoch 0, 5,000 images or all
    there are; leave others alone.

    Every rank gives its part of the batches and all get the same weights. Called before anything copies the model.
    """
    if not isinstance(model, CifarFast):
        return
    normalize = Normalize(channels, ranks.device, channels_last=False)
    moments, num_seen = [], 0
    with closing(train.epoch(0)) as batches:
        for batch in batches:
            moments.append(patch_moments(normalize(batch.images.to(ranks.device))))
            num_seen += len(batch.images) * ranks.world_size
            if num_seen >= _ENOUGH_IMAGES:
                break
    outer_products, count = (torch.stack(parts).sum(dim=0) for parts in zip(*moments, strict=True))
    filters = whitening_filters(ranks.sum(outer_products), ranks.sum(count))
    # decompositions on unlike processors may differ in their last bits: all take the main rank's
    model.whiten_with(ranks.sum(filters if ranks.is_main else torch.zeros_like(filters)))
