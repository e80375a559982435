"""spdl's pipeline of threads over FFmpeg, as its examples have it: a frame an image, joined as a batch is copied."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import spdl.io
import torch
from spdl.pipeline import PipelineBuilder
from torchvision.transforms import RandomResizedCrop

from .job import Job


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W], channels-last. Crop, flip and scaling are FFmpeg's filters."""
    folder = Path(job.data["folder"])
    labels = {path.name: label for label, path in enumerate(sorted(folder.iterdir()))}
    samples = [(str(path), labels[path.parent.name]) for path in sorted(folder.glob("*/*"))]
    scale = spdl.io.get_video_filter_desc(
        scale_width=job.size_px, scale_height=job.size_px, scale_algo="bilinear", scale_mode=None
    )

    def decoded(sample: tuple[str, int]) -> tuple[Any, int]:
        path, label = sample
        packets = spdl.io.demux_image(path)
        whole = torch.empty(3, packets.height, packets.width, device="meta")
        top, left, height, width = RandomResizedCrop.get_params(whole, [0.08, 1.0], [3 / 4, 4 / 3])
        flip = "hflip," if random.random() < 0.5 else ""
        crop = f"crop=w={width}:h={height}:x={left}:y={top}:exact=1,"
        return spdl.io.decode_packets(packets, filter_desc=crop + flip + scale), label

    def joined(batch: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        frames, labels = zip(*batch, strict=True)
        images = spdl.io.to_torch(spdl.io.convert_frames(list(frames)))
        return images.permute(0, 3, 1, 2), torch.tensor(labels)

    decoded(samples[0])  # without FFmpeg's libraries this raises, where the pipeline would wait for ever
    pipeline = (
        PipelineBuilder()
        .add_source(_shuffled(samples))
        .pipe(decoded, concurrency=job.num_workers)
        .aggregate(job.batch_size)
        .pipe(joined)
        .add_sink(3)
        .build(num_threads=job.num_workers)
    )
    with pipeline.auto_stop():
        for images, _ in pipeline:
            yield images


def _shuffled(samples: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    while True:
        yield from random.sample(samples, len(samples))
