"""webdataset's pipeline for training on ImageNet, as its example has it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import webdataset as wds
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor

from .job import Job
from .peer_pillow import MEAN, STD


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """float32 [B, 3, H, W]. Shards are drawn with replacement, so the stream has no end and needs no epochs."""
    shards = [str(path) for path in sorted(Path(job.data["shards"]).glob("train*.tar"))]
    transform = Compose([RandomResizedCrop(job.size_px), RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])
    samples = (
        wds.WebDataset(shards, resampled=True, shardshuffle=False)
        .shuffle(1000)
        .decode("pil")
        .map(partial(_pair, transform))
    )
    loader = wds.WebLoader(samples.batched(job.batch_size), batch_size=None, num_workers=job.num_workers)
    for images, _ in loader.unbatched().shuffle(10).batched(job.batch_size):
        yield images


def _pair(transform: Compose, sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    return transform(sample["jpg"]), sample["cls"]
