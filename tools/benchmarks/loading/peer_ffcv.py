"""FFCV's own `Loader`, with the pipelines of its documentation, for photos and for CIFAR."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import (
    NormalizeImage,
    RandomHorizontalFlip,
    RandomTranslate,
    Squeeze,
    ToTensor,
    ToTorchImage,
)

from engine.augment import IMAGENET_CHANNELS

from .job import Job


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W], channels-last."""
    yield from _images(job, [])


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """float32. On a CPU FFCV normalises by a table before a batch becomes a tensor."""
    mean, std = np.array(IMAGENET_CHANNELS.mean), np.array(IMAGENET_CHANNELS.std)
    yield from _images(job, [NormalizeImage(mean, std, np.float32)])


def quasi_random(job: Job) -> Iterator[torch.Tensor]:
    """uint8, in the order and with the cache that its guide advises where the data does not fit into memory."""
    yield from _images(job, [], OrderOption.QUASI_RANDOM, os_cache=False)


def _images(
    job: Job, normalize: list[Any], order: OrderOption = OrderOption.RANDOM, os_cache: bool = True
) -> Iterator[torch.Tensor]:
    augmented = [RandomResizedCropRGBImageDecoder((job.size_px, job.size_px)), RandomHorizontalFlip()]
    if job.view == "cifar":
        augmented = [SimpleRGBImageDecoder(), RandomHorizontalFlip(), RandomTranslate(padding=4)]
    loader = Loader(
        str(Path(job.data["beton"]) / "train.beton"),
        batch_size=job.batch_size,
        num_workers=job.num_workers,
        os_cache=os_cache,
        order=order,
        drop_last=True,
        pipelines={
            "image": [*augmented, *normalize, ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    while True:
        for images, _ in loader:
            yield images
