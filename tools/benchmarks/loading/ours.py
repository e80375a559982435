"""Streams of our own loaders, opened as the engine opens them."""

import contextlib
import itertools
from collections.abc import Iterator

import torch

from engine.augment import IMAGENET_CHANNELS, Normalize
from engine.sampling import SamplingConfig, training_order
from loaders.api import Loader, LoaderOptions
from loaders.beton_records import BetonRecords
from loaders.choose import open_loader
from loaders.crops import PadCrop, RandomResizedCrop
from loaders.native import library
from loaders.plan import Plan, View
from loaders.records import open_records
from loaders.turbo_loader import TurboLoader

from .job import Job
from .sides import SIDES

# 16 blocks make ten windows of the file that is read cold; more would make it a random order
_ORDERS = {"shuffled": SamplingConfig(), "block": SamplingConfig(order="block", blocks_mixed=16)}
_CROPS = {"photos": RandomResizedCrop(), "cifar": PadCrop(4)}


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W], channels-last, one epoch after the other."""
    with contextlib.closing(_loader(job)) as loader:
        for epoch in itertools.count():
            for batch in loader.epoch(epoch):
                yield batch.images


def pixels_by_libjpeg(job: Job) -> Iterator[torch.Tensor]:
    """The same, with Huffman codes left to libjpeg."""
    library.decode_codes(by_libjpeg=True)
    return pixels(job)


def pixels_from_start(job: Job) -> Iterator[torch.Tensor]:
    """The same, with every JPEG decoded from its start."""
    with contextlib.closing(_loader(job, may_seek=False)) as loader:
        for epoch in itertools.count():
            for batch in loader.epoch(epoch):
                yield batch.images


def copied(job: Job) -> Iterator[torch.Tensor]:
    """The rectangles of each batch, uint8 [P, 3], which `turbo` hands to the device in its mode of that name."""
    with contextlib.closing(_loader(job)) as loader:
        assert isinstance(loader, TurboLoader)
        for epoch in itertools.count():
            # the loader's own step before the last: nothing public ends there
            for batch in loader._host_batches(epoch, 0):
                yield batch.images


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """The same, then float32 of mean 0 and deviation 1, by the engine's own code."""
    normalize = Normalize(IMAGENET_CHANNELS, torch.device("cpu"), channels_last=True)
    for images in pixels(job):
        yield normalize(images)


def _loader(job: Job, may_seek: bool = True) -> Loader:
    side = SIDES[job.side]
    name, resize, order_name = side.options
    records = open_records(job.data[side.reads], "train")
    if not may_seek and isinstance(records, BetonRecords):
        records.seek_points = None
    view = View(_CROPS[job.view], job.size_px, flip_probability=0.5)
    order = training_order(records, _ORDERS[order_name], job.batch_size)
    plan = Plan(records.widths, records.heights, order, view, job.seed)
    return open_loader(name, records, plan, LoaderOptions(num_workers=job.num_workers, resize=resize or None))
