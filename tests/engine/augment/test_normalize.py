"""Normalisation has the bits of the plain formula, in either layout, and new memory for no batch on a CPU."""

import pytest
import torch

from engine.augment import Normalize
from loaders.records import ChannelStatistics

CHANNELS = ChannelStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "here")
CPU = torch.device("cpu")


def images_of(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)  # as loaders do


def plain(images: torch.Tensor) -> torch.Tensor:
    mean, scale = torch.tensor(CHANNELS.mean), 1 / torch.tensor(CHANNELS.std)
    return (images.float() - mean.view(1, 3, 1, 1)) * scale.view(1, 3, 1, 1)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(5, 33, 47, 3), (1, 1, 1, 3), (2, 1, 9, 3), (3, 8, 1, 3)])
def test_the_bits_are_those_of_the_formula_whatever_the_strides(channels_last, shape):
    normalize = Normalize(CHANNELS, CPU, channels_last)
    images = images_of(1, *shape)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for given in (images, images.contiguous(), images.flip(3)):
        normalised = normalize(given)
        assert normalised.equal(plain(given)) and normalised.dtype == torch.float32
        assert normalised.is_contiguous(memory_format=layout)


def test_the_memory_is_used_again_and_two_shapes_are_kept():
    normalize = Normalize(CHANNELS, CPU, channels_last=True)
    places = [normalize(images_of(seed, 4, size, size, 3)).data_ptr() for seed, size in enumerate((8, 9, 8, 9))]
    assert places[:2] == places[2:] and places[0] != places[1]
    for size in (10, 11, 12):
        assert normalize(images_of(size, 4, size, size, 3)).equal(plain(images_of(size, 4, size, size, 3)))
    assert len(normalize._kept) <= 2


def test_an_evaluation_before_training_leaves_memory_that_training_can_use():
    normalize = Normalize(CHANNELS, CPU, channels_last=True)
    model = torch.nn.Conv2d(3, 2, 3)
    with torch.inference_mode():
        model(normalize(images_of(1, 2, 8, 8, 3)))
    model(normalize(images_of(2, 2, 8, 8, 3))).sum().backward()
    expected = torch.autograd.grad(model(plain(images_of(2, 2, 8, 8, 3))).sum(), model.weight)[0]
    assert torch.allclose(model.weight.grad, expected, rtol=1e-5)
