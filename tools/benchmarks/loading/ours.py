"""Streams of our own loaders, opened as the engine opens them."""

from collections.abc import Iterator

import torch

from engine.augment import IMAGENET_CHANNELS, Normalize
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import PadCrop, RandomResizedCrop
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records

from .job import Job
from .sides import SIDES

_CROPS = {"photos": RandomResizedCrop(), "cifar": PadCrop(4)}


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W], channels-last, one epoch after the other."""
    side = SIDES[job.side]
    name, resize = side.options
    records = open_records(job.data[side.reads], "train")
    view = View(_CROPS[job.view], job.size_px, flip_probability=0.5)
    plan = Plan(records.widths, records.heights, Shuffled(job.batch_size), view, job.seed)
    options = LoaderOptions(num_workers=job.num_workers, resize=resize or None)
    loader = open_loader(name, records, plan, options)
    try:
        epoch = 0
        while True:
            for batch in loader.epoch(epoch):
                yield batch.images
            epoch += 1
    finally:
        loader.close()


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """The same, then float32 of mean 0 and deviation 1, by the engine's own code."""
    normalize = Normalize(IMAGENET_CHANNELS, torch.device("cpu"), channels_last=True)
    for images in pixels(job):
        yield normalize(images)
