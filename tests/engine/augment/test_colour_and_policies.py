"""Batched image operations against torchvision's, which take one image and one strength at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from engine.augment import colour
from engine.augment.augment_config import AugmentConfig
from engine.augment.colour import ColourJitter
from engine.augment.draws import draws_of
from engine.augment.policies import (
    OPERATIONS,
    RAND_RANGES,
    TRIVIAL_RANGES,
    RandAugment,
    TrivialAugment,
    apply,
)

# in torchvision's spelling, in the order of ours
TORCHVISION_NAMES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)


def _images(num=8, height=20, width=28, seed=0):
    """Smooth pictures with noise, one of them grey and one of one colour, uint8 channels-last."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 5, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    images += torch.randn(images.shape, generator=generator) * 8
    images[0] = images[0].mean(dim=0)
    images[1] = torch.tensor([10.0, 200.0, 90.0])[:, None, None]
    return images.clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _draws(num=8, step=0, first=0):
    return draws_of(5, step, np.arange(first, first + num))


@pytest.mark.parametrize(
    ("ours", "theirs", "strengths"),
    [
        (colour.brightness, reference.adjust_brightness, np.linspace(0, 2, 8)),
        (colour.contrast, reference.adjust_contrast, np.linspace(0, 2, 8)),
        (colour.saturation, reference.adjust_saturation, np.linspace(0, 2, 8)),
        (colour.hue, reference.adjust_hue, np.linspace(-0.5, 0.5, 8)),
    ],
)
def test_colour_operations_are_torchvisions_on_floats_with_a_strength_for_each_image(ours, theirs, strengths):
    images = _images().float()
    result = ours(images, torch.tensor(strengths, dtype=torch.float32)[:, None, None, None])
    for image, out, strength in zip(images, result, strengths, strict=True):
        expected = theirs(image / 255, float(strength)) * 255
        torch.testing.assert_close(out, expected, rtol=0, atol=0.01)


def test_sharpness_is_torchvisions():
    images, strengths = _images(), np.linspace(0, 2, 8)
    result = colour.sharpness(images.float(), torch.tensor(strengths, dtype=torch.float32)[:, None, None, None])
    for image, out, strength in zip(images, result, strengths, strict=True):
        expected = reference.adjust_sharpness(image, float(strength)).float()
        assert (out - expected).abs().max() <= 1.001  # theirs is cut off to whole numbers
    tiny = _images(height=2)
    assert torch.equal(colour.sharpness(tiny.float(), torch.zeros(8, 1, 1, 1)), tiny.float())


def test_jitter_is_the_chain_of_torchvisions_operations_in_the_drawn_order():
    config = AugmentConfig(brightness=0.4, contrast=0.6, saturation=1.5, hue=0.3, jitter_probability=0.75)
    operations = {
        "brightness": (reference.adjust_brightness, 1, 0.6, 1.4),
        "contrast": (reference.adjust_contrast, 1, 0.4, 1.6),
        "saturation": (reference.adjust_saturation, 1, 0.0, 2.5),
        "hue": (reference.adjust_hue, 0, -0.3, 0.3),
    }
    images, orders, num_untouched = _images(), set(), 0
    for step in range(12):
        draws = _draws(step=step)
        result = ColourJitter(config)(images, draws)
        assert result.dtype == torch.uint8
        order = sorted(operations, key=lambda name, draws=draws: draws.shared().bits(f"order of {name}")[0])
        orders.add(tuple(order))
        is_jittered = draws.uniform("jitter") < 0.75
        for i, image in enumerate(images):
            if not is_jittered[i]:
                assert torch.equal(result[i], image)
                num_untouched += 1
                continue
            expected = image.float() / 255
            for name in order:
                operation, _, low, high = operations[name]
                expected = operation(expected, float(low + (high - low) * draws.uniform(name)[i]))
            assert (result[i].float() - expected * 255).abs().max() < 0.52  # rounded once
    assert len(orders) > 3 and 0 < num_untouched < 60


def _torchvision_strength(space, name, magnitude, height, width):
    magnitudes, signed = space[name]
    values = magnitudes(31, height, width)
    return 0.0 if values is None else float(values[magnitude]), signed


@pytest.mark.parametrize(
    ("ranges", "space"),
    [
        (RAND_RANGES, v2.RandAugment._AUGMENTATION_SPACE),
        (TRIVIAL_RANGES, v2.TrivialAugmentWide._AUGMENTATION_SPACE),
    ],
)
def test_strengths_are_torchvisions_for_every_operation_and_magnitude(ranges, space):
    assert list(space) == list(TORCHVISION_NAMES)
    for number, name in enumerate(TORCHVISION_NAMES):
        for magnitude in range(31):
            value, signed = _torchvision_strength(space, name, magnitude, 200, 300)
            for sign in (-1, 1):
                theirs = value * (sign if signed else 1)
                expected = theirs
                if name.startswith("Translate"):
                    expected = int(theirs + 1e-4 * sign)  # their float32 has 15.99999 for 16
                if name == "Posterize":
                    expected = (0xFF << (8 - int(theirs))) & 0xFF
                if name == "Solarize":
                    expected = 255 * theirs
                if name in ("Brightness", "Color", "Contrast", "Sharpness"):
                    expected = 1 + theirs
                numbers = [np.array([n]) for n in (number, magnitude, sign)]
                [ours] = ranges.strengths(*numbers, (200, 300))
                assert ours == pytest.approx(expected, abs=2e-5), (name, magnitude, sign)


def _by_torchvision(image, name, strength):
    """What torchvision's RandAugment and TrivialAugmentWide do for a strength in our units, bilinear."""
    bilinear = {"interpolation": InterpolationMode.BILINEAR, "fill": None}
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **bilinear}
    degrees = math.degrees(math.atan(strength))
    return {
        "identity": lambda: image,
        "shear-x": lambda: reference.affine(image, **still | {"shear": [degrees, 0.0], "center": [0, 0]}),
        "shear-y": lambda: reference.affine(image, **still | {"shear": [0.0, degrees], "center": [0, 0]}),
        "translate-x": lambda: reference.affine(image, **still | {"translate": [int(strength), 0]}),
        "translate-y": lambda: reference.affine(image, **still | {"translate": [0, int(strength)]}),
        "rotate": lambda: reference.rotate(image, strength, **bilinear),
        "brightness": lambda: reference.adjust_brightness(image, strength),
        "saturation": lambda: reference.adjust_saturation(image, strength),
        "contrast": lambda: reference.adjust_contrast(image, strength),
        "sharpness": lambda: reference.adjust_sharpness(image, strength),
        "posterize": lambda: reference.posterize(image, int(strength).bit_count()),
        "solarize": lambda: reference.solarize(image, strength),
        "autocontrast": lambda: reference.autocontrast(image),
        "equalize": lambda: reference.equalize(image),
    }[name]()


@pytest.mark.parametrize("ranges", [RAND_RANGES, TRIVIAL_RANGES])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_torchvisions_at_every_strength(ranges, name):
    exact = {"identity", "posterize", "solarize", "autocontrast", "equalize"}
    on_floats = {"brightness", "saturation", "contrast"}  # theirs cuts off in between where pixels are whole numbers
    operations = np.full(62, OPERATIONS.index(name))
    magnitudes, signs = np.tile(np.arange(31), 2), np.repeat([-1, 1], 31)
    strengths = ranges.strengths(operations, magnitudes, signs, (20, 28))
    images = _images(62)
    result = apply(images, operations, strengths)
    for image, out, strength in zip(images, result, strengths, strict=True):
        taken = image.float() / 255 if name in on_floats else image
        expected = _by_torchvision(taken, name, float(strength)).float() * (255 if name in on_floats else 1)
        difference = (out.float() - expected).abs()
        assert difference.max() <= (0 if name in exact else 0.51 if name in on_floats else 1), float(strength)


def test_a_mixed_batch_gives_each_image_what_it_would_get_alone():
    images = _images(64)
    operations = np.arange(64) % len(OPERATIONS)
    strengths = TRIVIAL_RANGES.strengths(operations, np.arange(64) % 31, np.where(np.arange(64) % 3, 1, -1), (20, 28))
    before = images.clone()
    together = apply(images, operations, strengths)
    assert torch.equal(images, before)
    for i in range(64):
        alone = apply(images[i : i + 1], operations[i : i + 1], strengths[i : i + 1])[0]
        assert (together[i].int() - alone.int()).abs().max() <= 1
        assert (together[i] != alone).float().mean() < 0.01  # a mean may be summed in another order


@pytest.mark.parametrize("policy", [RandAugment(2, 9), RandAugment(3, 15), TrivialAugment()])
def test_policies_draw_by_id_and_step_alone_and_change_images(policy):
    images = _images(40)
    whole = policy(images, _draws(40))
    assert whole.dtype == torch.uint8 and whole.shape == images.shape
    halves = [policy(images[:20], _draws(20)), policy(images[20:], _draws(20, first=20))]
    difference = (torch.cat(halves).int() - whole.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01
    assert not torch.equal(whole, policy(images, _draws(40, step=1)))
    changed = (whole != images).flatten(1).any(1).float().mean()
    assert changed > 0.7


def test_rand_augment_applies_its_operations_one_after_another():
    images, draws = _images(40), _draws(40)
    expected = images
    for place in range(2):
        operations = draws.below(14, f"policy {place} operation")
        signs = 2 * draws.below(2, f"policy {place} sign") - 1
        expected = apply(expected, operations, RAND_RANGES.strengths(operations, np.full(40, 9), signs, (20, 28)))
    assert torch.equal(RandAugment(2, 9)(images, draws), expected)


def test_operations_magnitudes_and_signs_are_drawn_evenly():
    draws = _draws(30_000)
    for bound, name in ((14, "policy 0 operation"), (31, "policy magnitude"), (2, "policy 0 sign")):
        assert stats.chisquare(np.bincount(draws.below(bound, name), minlength=bound)).pvalue > 0.001
