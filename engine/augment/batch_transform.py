"""What happens to a batch of training images around its normalisation."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from .augment_config import AugmentConfig
from .colour import ColourJitter
from .draws import SampleDraws, draws_of
from .erasing import Erasing
from .mixing import Mixing
from .policies import RandAugment, TrivialAugment
from .shifting import Shifting

OnImages = Callable[[torch.Tensor, SampleDraws], torch.Tensor]
OnBatch = Callable[[torch.Tensor, torch.Tensor, SampleDraws], tuple[torch.Tensor, torch.Tensor]]


class BatchTransform(Protocol):
    """Two moments of a step. `ids` are int64 [B] on the host, `step` is the global step number.

    Neither makes the host wait for the device, and what both do depends on (seed, step, ids) alone.
    """

    def before_normalising(self, images: torch.Tensor, ids: torch.Tensor, step: int) -> torch.Tensor:
        """uint8 [B, 3, H, W] to the same. The batch handed in is left as it is."""
        ...

    def after_normalising(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float [B, 3, H, W] images and int64 [B] labels to images and targets: the labels themselves, or
        float32 [B, classes] shares that sum to 1. Both are what `cross_entropy` takes, with label smoothing on top.
        """
        ...


class Augmentation:
    """A BatchTransform made of stages. Where there is none nothing is drawn."""

    def __init__(
        self, seed: int, on_pixels: Sequence[OnImages], on_inputs: Sequence[OnImages], mix: OnBatch | None
    ) -> None:
        self._seed = seed
        self._on_pixels = on_pixels
        self._on_inputs = on_inputs
        self._mix = mix

    def before_normalising(self, images: torch.Tensor, ids: torch.Tensor, step: int) -> torch.Tensor:
        """Shifts, policies and colours, as far as there are any."""
        if not self._on_pixels:
            return images
        draws = draws_of(self._seed, step, ids.numpy())
        for stage in self._on_pixels:
            images = stage(images, draws)
        return images

    def after_normalising(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Erasing and mixing, as far as there are any."""
        if not self._on_inputs and self._mix is None:
            return images, labels
        draws = draws_of(self._seed, step, ids.numpy())
        for stage in self._on_inputs:
            images = stage(images, draws)
        return (images, labels) if self._mix is None else self._mix(images, labels, draws)


UNCHANGED = Augmentation(0, (), (), None)


def build_augmentation(config: AugmentConfig, seed: int, num_classes: int) -> BatchTransform:
    """What `config` asks for; with everything off, batches stay as they are."""
    on_pixels: list[OnImages] = [Shifting(config)] if config.turns_on("shift") else []
    if config.policy == "rand":
        on_pixels.append(RandAugment(config.policy_operations, config.policy_magnitude))
    if config.policy == "trivial":
        on_pixels.append(TrivialAugment())
    if config.turns_on("jitter"):
        on_pixels.append(ColourJitter(config))
    on_inputs: list[OnImages] = [Erasing(config)] if config.turns_on("erase") else []
    mix = Mixing(config, num_classes) if config.turns_on("mix") else None
    return Augmentation(seed, on_pixels, on_inputs, mix)
