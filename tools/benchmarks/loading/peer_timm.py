"""`timm.data.create_loader` as timm's train.py calls it, without its prefetcher, which is for GPUs."""

from collections.abc import Iterator

import torch
from timm.data import create_dataset, create_loader

from .job import Job


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """float32 [B, 3, H, W]. Its colour jitter and its random choice of a filter are off: all do the same work."""
    samples = create_dataset("", root=job.data["folder"], is_training=True)
    loader = create_loader(
        samples,
        input_size=(3, job.size_px, job.size_px),
        batch_size=job.batch_size,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=job.num_workers,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )
    while True:
        for images, _ in loader:
            yield images
