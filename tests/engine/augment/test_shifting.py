"""Shifts against NumPy's padding, one image at a time."""

import numpy as np
import pytest
import torch

from engine.augment.augment_config import AugmentConfig
from engine.augment.draws import draws_of
from engine.augment.shifting import Shifting
from engine.config import Config, DataConfig
from loaders.errors import FeedrateError

IDS = np.arange(500, 900)


def _images(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (400, height, width, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


def _shifted(images, most, ids=IDS):
    return Shifting(AugmentConfig(shift_px=most))(images, draws_of(1, 2, ids))


@pytest.mark.parametrize(("height", "width", "most"), [(32, 32, 2), (9, 14, 8), (4, 5, 3)])
def test_each_image_is_a_window_of_itself_with_mirrored_borders(height, width, most):
    images = _images(height, width)
    before = images.clone()
    shifted = _shifted(images, most)
    assert shifted.shape == images.shape and shifted.dtype == torch.uint8
    assert shifted.is_contiguous(memory_format=torch.channels_last)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (most, most), (most, most)), "reflect")
    draws = draws_of(1, 2, IDS)
    down, right = (draws.below(2 * most + 1, f"shift {name}") - most for name in ("down", "right"))
    assert {*down.tolist()} == {*right.tolist()} == {*range(-most, most + 1)}
    for number, (y, x) in enumerate(zip(most - down, most - right, strict=True)):
        assert np.array_equal(shifted[number].numpy(), padded[number, :, y : y + height, x : x + width])
    assert torch.equal(images, before)


def test_a_shift_depends_on_the_sample_and_not_on_its_place():
    images = _images(12, 12)
    assert torch.equal(_shifted(images.flip(0), 3, IDS[::-1].copy()), _shifted(images, 3).flip(0))


def test_a_shift_by_a_whole_image_is_refused_and_one_that_is_negative():
    sizes = DataConfig(size_schedule=((0, 8), (1, 16)))
    Config(data=sizes, augment=AugmentConfig(shift_px=7))
    with pytest.raises(FeedrateError, match="shift_px is 8 and images of 8 px are trained on"):
        Config(data=sizes, augment=AugmentConfig(shift_px=8))
    with pytest.raises(FeedrateError, match="shift_px is -1: it must be 0 or more"):
        AugmentConfig(shift_px=-1)
