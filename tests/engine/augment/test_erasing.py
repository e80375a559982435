"""Random erasing against torchvision's rule written out for one image at a time."""

import math

import numpy as np
import pytest
import torch

from engine.augment.augment_config import AugmentConfig
from engine.augment.draws import draws_of
from engine.augment.erasing import Erasing

IDS = np.arange(300, 700)
CONFIG = AugmentConfig(erase_probability=0.7, erase_area=(0.1, 0.9), erase_ratio=(0.3, 3.3))


def _draws(ids=IDS, step=2):
    return draws_of(1, step, np.asarray(ids, dtype=np.int64))


def _plain_box(sample_id, config, height, width):
    """Up to ten rectangles of a random area and ratio; the first that is smaller than the image is taken."""

    def uniform(name):
        return float(_draws([sample_id]).uniform(name)[0])

    if uniform("erase") >= config.erase_probability:
        return [0, 0, 0, 0]
    for attempt in range(10):
        low, high = config.erase_area
        area = (low + (high - low) * uniform(f"erase area {attempt}")) * height * width
        low, high = (math.log(ratio) for ratio in config.erase_ratio)
        ratio = math.exp(low + (high - low) * uniform(f"erase ratio {attempt}"))
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top = math.floor(uniform("erase top") * (height - tall + 1))
            left = math.floor(uniform("erase left") * (width - wide + 1))
            return [top, left, top + tall, left + wide]
    return [0, 0, 0, 0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_rectangles_are_those_of_the_plain_rule(height, width):
    boxes = Erasing(CONFIG).boxes(_draws(), height, width)
    assert boxes.tolist() == [_plain_box(sample_id, CONFIG, height, width) for sample_id in IDS]
    assert (boxes >= 0).all() and (boxes[:, 2] <= height).all() and (boxes[:, 3] <= width).all()


def test_exactly_the_rectangle_is_blanked_and_all_else_stays():
    images = torch.randn(400, 3, 24, 20, generator=torch.Generator().manual_seed(0)) + 5
    before = images.clone()
    erasing = Erasing(CONFIG)
    erased = erasing(images, _draws())
    for i, (top, left, bottom, right) in enumerate(erasing.boxes(_draws(), 24, 20)):
        expected = before[i].clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(erased[i], expected)
    assert torch.equal(images, before)


def test_a_colour_fills_the_rectangle_evenly_and_is_normally_spread():
    images = torch.full((400, 3, 24, 20), 100.0)
    config = AugmentConfig(erase_probability=1.0, erase_fill="colour")
    erased = Erasing(config)(images, _draws())
    fills = []
    for image, (top, left, bottom, right) in zip(erased, Erasing(config).boxes(_draws(), 24, 20), strict=True):
        patch = image[:, top:bottom, left:right].flatten(1)
        if patch.shape[1]:
            assert (patch == patch[:, :1]).all()
            fills.append(patch[:, 0])
    fills = torch.stack(fills)
    assert fills.mean().abs() < 0.1 and abs(fills.std() - 1) < 0.1


def test_area_ratio_and_probability_keep_to_their_settings():
    config = AugmentConfig(erase_probability=0.25, erase_area=(0.05, 0.1), erase_ratio=(0.5, 2.0))
    boxes = Erasing(config).boxes(_draws(range(10_000)), 1000, 1000)
    tall, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    is_erased = tall > 0
    assert is_erased.mean() == pytest.approx(0.25, abs=0.015)
    share, ratio = (tall * wide)[is_erased] / 1e6, tall[is_erased] / wide[is_erased]
    assert share.min() > 0.0495 and share.max() < 0.1005
    assert ratio.min() > 0.495 and ratio.max() < 2.02


def test_rectangles_do_not_depend_on_place_or_neighbours():
    erasing = Erasing(CONFIG)
    whole = erasing.boxes(_draws(), 32, 32)
    np.testing.assert_array_equal(whole[200:], erasing.boxes(_draws(IDS[200:]), 32, 32))
    assert not np.array_equal(whole, erasing.boxes(_draws(step=3), 32, 32))
