"""torchvision's `ImageFolder` in a `DataLoader`, as PyTorch's ImageNet example has it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    Compose,
    Normalize,
    PILToTensor,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToTensor,
)

from .job import Job

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W]."""
    yield from _images(job, [PILToTensor()])


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """float32 [B, 3, H, W]."""
    yield from _images(job, [ToTensor(), Normalize(MEAN, STD)])


def _images(job: Job, last: list[Any]) -> Iterator[torch.Tensor]:
    transform = Compose([RandomResizedCrop(job.size_px), RandomHorizontalFlip(), *last])
    yield from endless(ImageFolder(job.data["folder"], transform), job)


def endless(samples: Any, job: Job) -> Iterator[torch.Tensor]:
    """Shuffled batches of images of a map-style data set, epoch after epoch. Its workers stay, which favours it."""
    loader = DataLoader(
        samples,
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.num_workers,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        for images, _ in loader:
            yield images
