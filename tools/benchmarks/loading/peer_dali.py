"""DALI's file pipeline of its ResNet-50 example, on the CPU."""

from collections.abc import Iterator

import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy

from engine.augment import IMAGENET_CHANNELS

from .job import Job


def pixels(job: Job) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W]: the same pipeline without the normalisation, in the layout it computes in."""
    for images in _images(job, is_float=False):
        yield images.permute(0, 3, 1, 2)


def normalised(job: Job) -> Iterator[torch.Tensor]:
    """float32 [B, 3, H, W], as the example has it."""
    yield from _images(job, is_float=True)


@pipeline_def
def _pipeline(folder: str, size_px: int, is_float: bool):  # type: ignore[no-untyped-def]  # DALI's graph nodes
    images, labels = fn.readers.file(file_root=folder, random_shuffle=True, name="Reader")
    images = fn.decoders.image_random_crop(
        images,
        device="cpu",
        output_type=types.RGB,
        random_aspect_ratio=[3 / 4, 4 / 3],  # the example has 0.8 … 1.25 and 0.1 … 1; here all cut the same
        random_area=[0.08, 1.0],
        num_attempts=100,
    )
    images = fn.resize(images, device="cpu", size=[size_px, size_px], interp_type=types.INTERP_TRIANGULAR)
    mirror = fn.random.coin_flip(probability=0.5)
    if not is_float:
        return fn.flip(images, horizontal=mirror), labels
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        crop=(size_px, size_px),
        mean=list(IMAGENET_CHANNELS.mean),
        std=list(IMAGENET_CHANNELS.std),
        mirror=mirror,
    )
    return images, labels


def _images(job: Job, is_float: bool) -> Iterator[torch.Tensor]:
    pipe = _pipeline(
        job.data["folder"],
        job.size_px,
        is_float,
        batch_size=job.batch_size,
        num_threads=job.num_workers,
        device_id=None,
        seed=12,
    )
    pipe.build()
    batches = DALIClassificationIterator(
        pipe, reader_name="Reader", last_batch_policy=LastBatchPolicy.DROP, auto_reset=True
    )
    while True:
        for (batch,) in batches:
            yield batch["data"]
