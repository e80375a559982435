"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller and Hutter 2021): operations drawn for each image.

The fourteen operations, their ranges and 31 magnitudes are torchvision's, with bilinear interpolation and black beyond
the border, as in its reference scripts. Images with the same kind of operation go through it together, each with its
own strength; results are rounded to uint8, where torchvision's colour operations cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from . import colour
from .draws import Floats, Ints, SampleDraws, on_device

OPERATIONS = (
    *("identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate"),
    *("brightness", "saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
_NUM_MAGNITUDES = 31
_SIGNED = np.array([OPERATIONS.index("shear-x") <= i <= OPERATIONS.index("sharpness") for i in range(len(OPERATIONS))])


@dataclass(frozen=True)
class Ranges:
    """What the largest magnitude means.

    shear            tangent of the angle
    translate_share  of the image's side, or
    translate_px     pixels, where the share is 0
    rotate_degrees   either way
    colour           by how much a factor differs from 1
    lost_bits        of 8, for posterize
    """

    shear: float
    translate_share: float
    translate_px: float
    rotate_degrees: float
    colour: float
    lost_bits: int

    def strengths(self, operations: Ints, magnitudes: Ints, signs: Ints, side_px: tuple[int, int]) -> Floats:
        """float64 [B]: what each operation needs, for magnitudes of 0-30, signs of -1 and 1, and (height, width).

        Shear as a tangent, translation in whole pixels, rotation in degrees, a factor for colours, the bits that are
        kept as a mask for posterize, the lowest inverted value for solarize.
        """
        height, width = side_px
        share = magnitudes / (_NUM_MAGNITUDES - 1)
        sign = np.where(_SIGNED[operations], signs, 1)
        kept = 8 - np.rint(share * self.lost_bits).astype(np.int64)  # halves to even, on both sides of 8
        table = np.zeros((len(OPERATIONS), len(operations)))
        table[1:3] = sign * self.shear * share
        table[3] = sign * np.trunc((self.translate_share * width or self.translate_px) * share)
        table[4] = sign * np.trunc((self.translate_share * height or self.translate_px) * share)
        table[5] = sign * self.rotate_degrees * share
        table[6:10] = 1 + sign * self.colour * share
        table[10] = (0xFF << (8 - kept)) & 0xFF
        table[11] = 255 * (1 - share)
        strengths: Floats = table[operations, np.arange(len(operations))]
        return strengths


RAND_RANGES = Ranges(0.3, 150 / 331, 0.0, 30.0, 0.9, 4)
TRIVIAL_RANGES = Ranges(0.99, 0.0, 32.0, 135.0, 0.99, 6)


class RandAugment:
    """So many operations an image, one after another, all at one magnitude."""

    def __init__(self, num_operations: int, magnitude: int) -> None:
        self._num_operations = num_operations
        self._magnitude = magnitude

    def __call__(self, images: torch.Tensor, draws: SampleDraws) -> torch.Tensor:
        """uint8 [B, 3, H, W] to the same."""
        magnitudes = np.full(len(draws), self._magnitude)
        for place in range(self._num_operations):
            images = _apply_drawn(images, draws, RAND_RANGES, magnitudes, f"policy {place}")
        return images


class TrivialAugment:
    """One operation an image, at a magnitude drawn for it."""

    def __call__(self, images: torch.Tensor, draws: SampleDraws) -> torch.Tensor:
        """uint8 [B, 3, H, W] to the same."""
        magnitudes = draws.below(_NUM_MAGNITUDES, "policy magnitude")
        return _apply_drawn(images, draws, TRIVIAL_RANGES, magnitudes, "policy 0")


def _apply_drawn(images: torch.Tensor, draws: SampleDraws, ranges: Ranges, magnitudes: Ints, name: str) -> torch.Tensor:
    operations = draws.below(len(OPERATIONS), f"{name} operation")
    signs = 2 * draws.below(2, f"{name} sign") - 1
    height, width = images.shape[2:]
    return apply(images, operations, ranges.strengths(operations, magnitudes, signs, (height, width)))


def apply(images: torch.Tensor, operations: Ints, strengths: Floats) -> torch.Tensor:
    """uint8 [B, 3, H, W], image i by OPERATIONS[operations[i]] with its strength, to the same.

    Everything that the device needs travels in two copies; the host, which drew, knows how many images each kind has.
    """
    height, width = images.shape[2:]
    kinds = _KIND_OF[operations]
    order = np.argsort(kinds, kind="stable")
    places = on_device(np.stack([order, np.argsort(order, kind="stable")]), images.device)
    matrices = _sampling_matrices(operations[order], strengths[order], height, width)
    numbers = np.concatenate([strengths[order, None], matrices], axis=1).astype(np.float32)
    settings = on_device(numbers, images.device)
    by_kind = images[places[0]]
    start = 0
    for kind, count in enumerate(np.bincount(kinds, minlength=len(_KINDS)).tolist()):
        if count and kind:  # kind 0 changes nothing
            part = slice(start, start + count)
            by_kind[part] = _KINDS[kind](by_kind[part], settings[part])
        start += count
    return by_kind[places[1]]


def _sampling_matrices(operations: Ints, strengths: Floats, height: int, width: int) -> Floats:
    """float64 [B, 6]: for each place of the result, where in the image it comes from, in grid_sample's coordinates
    of -1 to 1. Shears leave the image's upper left corner in place, rotations its middle."""
    matrices = np.zeros((len(operations), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1
    for operation, row in ((1, 0), (2, 1)):
        rows = operations == operation
        matrices[rows, row, 1 - row] = strengths[rows]
        matrices[rows, row, 2] = strengths[rows] * (height, width)[row] / 2
    for operation, row in ((3, 0), (4, 1)):
        rows = operations == operation
        matrices[rows, row, 2] = -strengths[rows]
    rows = operations == 5
    radians = np.deg2rad(strengths[rows])
    matrices[rows, 0, 0] = matrices[rows, 1, 1] = np.cos(radians)
    matrices[rows, 1, 0] = np.sin(radians)
    matrices[rows, 0, 1] = -np.sin(radians)
    # from pixels around the middle to -1 … 1
    scale = np.array([width, height]) / 2
    matrices[:, :, :2] *= scale[None, None, :] / scale[None, :, None]
    matrices[:, :, 2] /= scale
    return matrices.reshape(-1, 6)


def _sampling_grid(matrices: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """float32 [B, height, width, 2] for grid_sample, of float32 [B, 6]. What torch's affine_grid is for; but that
    multiplies matrices, and so on CUDA may round to the ten bits of TF32."""
    x, y = (((2 * torch.arange(size, device=matrices.device) + 1) / size - 1) for size in (width, height))
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    return torch.stack([a * x + b * y[:, None] + c, d * x + e * y[:, None] + f], dim=-1)


def _move(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    grid = _sampling_grid(settings[:, 1:], *images.shape[-2:])
    moved = functional.grid_sample(images.to(torch.float32), grid, "bilinear", "zeros", align_corners=False)
    return moved.round_().to(torch.uint8)


def _by_factor(
    operation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def apply_factors(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
        result = operation(images.to(torch.float32), settings[:, :1, None, None])
        return result.round_().to(torch.uint8)

    return apply_factors


def _posterize(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    return images & settings[:, :1, None, None].to(torch.uint8)


def _solarize(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    return torch.where(images >= settings[:, :1, None, None], 255 - images, images)


def _autocontrast(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as image_operations  # imported where needed: it takes seconds

    result: torch.Tensor = image_operations.autocontrast(images)
    return result


def _equalize(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as image_operations

    result: torch.Tensor = image_operations.equalize(images)
    return result


def _unchanged(images: torch.Tensor, settings: torch.Tensor) -> torch.Tensor:
    return images


_KINDS: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ...] = (
    _unchanged,
    _move,
    *(_by_factor(operation) for operation in (colour.brightness, colour.saturation, colour.contrast)),
    _by_factor(colour.sharpness),
    *(_posterize, _solarize, _autocontrast, _equalize),
)
# the five movements are one kind
_KIND_OF = np.array([0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
