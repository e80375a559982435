"""CIFAR the usual way: torchvision's transforms over arrays in memory, in a `DataLoader`."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import Compose, PILToTensor, RandomCrop, RandomHorizontalFlip

from loaders.records import open_records

from .job import Job
from .peer_pillow import endless


class _InMemory(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """As `torchvision.datasets.CIFAR10`: arrays, from each of which a Pillow image is made."""

    def __init__(self, images: NDArray[np.uint8], labels: list[int], transform: Compose) -> None:
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, 32, 32]."""
    records = open_records(job.data["beton"], "train")
    size = job.size_px
    images = np.stack([records.read(index).reshape(size, size, 3) for index in range(len(records))])
    transform = Compose([RandomCrop(size, padding=4), RandomHorizontalFlip(), PILToTensor()])
    yield from endless(_InMemory(images, records.labels.tolist(), transform), job)
