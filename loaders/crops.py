"""Where to cut a sample: rectangles in the sample's own pixels, as integers from integer arithmetic.

A rectangle is (left, top, width, height). It may reach past the sample's border; loaders fill what lies outside.
Floats appear only in the settings: they become fixed-point numbers (Q24: 24 fractional bits, and so on) before any
sample is touched, so no two machines can round a rectangle differently.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .counter_random import Draws, below
from .errors import FeedrateError

MAX_SIDE_PX = 65_535  # what .beton can store, and what keeps the products below inside 64 bits

Ints = NDArray[np.int64]
Rects = NDArray[np.int32]

_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_RATIO_STEPS = 4096
_MAX_ATTEMPTS = 10  # torchvision's


class Crop(Protocol):
    """How rectangles are chosen. Implementations are frozen dataclasses; their fields go into the stream's identity."""

    def rects(self, widths: Ints, heights: Ints, keys: Ints, draws: Draws) -> Rects:
        """int32 [n, 4] of (left, top, width, height) for samples of these sizes; a pure function of its arguments.

        `keys` are what the draws hash: a sample's id, and something else where it occurs again (see `sampling`).
        """
        ...


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of random area and aspect ratio, distributed as torchvision's `RandomResizedCrop`.

    Up to ten tries draw an area (uniform in `scale` × the sample's) and an aspect ratio (log-uniform in `ratio`); the
    first that fits is placed uniformly. If none fits, the largest centred part with an allowed ratio is taken.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise FeedrateError(f"crop scale {self.scale} must satisfy 0 < smallest <= largest <= 1")
        if not 1 / 16 <= self.ratio[0] <= self.ratio[1] <= 16:
            raise FeedrateError(f"crop ratio {self.ratio} must satisfy 1/16 <= smallest <= largest <= 16")

    def rects(self, widths: Ints, heights: Ints, keys: Ints, draws: Draws) -> Rects:
        rects = self._largest_allowed(widths, heights)
        pending = np.arange(len(keys))
        for attempt in range(_MAX_ATTEMPTS):
            shape_bits = draws(f"crop shape {attempt}", keys[pending])
            crop_w, crop_h = self._sizes(widths[pending], heights[pending], shape_bits)
            fits = (crop_w > 0) & (crop_w <= widths[pending]) & (crop_h > 0) & (crop_h <= heights[pending])
            chosen, crop_w, crop_h = pending[fits], crop_w[fits], crop_h[fits]
            place_bits = draws(f"crop place {attempt}", keys[chosen])
            rects[chosen, 0] = _place(place_bits >> _32, widths[chosen] - crop_w)
            rects[chosen, 1] = _place(place_bits & _LOW_32, heights[chosen] - crop_h)
            rects[chosen, 2] = crop_w
            rects[chosen, 3] = crop_h
            pending = pending[~fits]
            if not len(pending):
                break
        return rects

    def _sizes(self, widths: Ints, heights: Ints, bits: NDArray[np.uint64]) -> tuple[Ints, Ints]:
        """Widths and heights of one attempt, rounded to the nearest pixel; they may not fit."""
        ratios, inverses = _ratio_table(*self.ratio)
        low, high = (np.uint64(round(bound * 2**24)) for bound in self.scale)
        scale_q24 = low + ((bits >> _32) * (high - low) >> _32)
        area_q8 = ((widths * heights).astype(np.uint64) * scale_q24) >> np.uint64(16)
        step = ((bits & _LOW_32) * np.uint64(_RATIO_STEPS) >> _32).astype(np.intp)
        # area (Q8) × ratio (Q16) is a squared side in Q24, below 2**60; its root is a side in Q12
        return _rounded_root(area_q8 * ratios[step]), _rounded_root(area_q8 * inverses[step])

    def _largest_allowed(self, widths: Ints, heights: Ints) -> Rects:
        """The centred part torchvision falls back to: the whole sample, its longer side cut to an allowed ratio."""
        low_q16, high_q16 = (round(bound * 2**16) for bound in self.ratio)
        crop_h = np.minimum(heights, np.maximum(1, (widths * 2**17 // low_q16 + 1) >> 1))
        crop_w = np.minimum(widths, np.maximum(1, (heights * high_q16 * 2 + 2**16) >> 17))
        return _stack((widths - crop_w) // 2, (heights - crop_h) // 2, crop_w, crop_h)


@dataclass(frozen=True)
class CenterCrop:
    """The centred square whose side is `crop_px / resize_px` of the shorter side, rounded to the nearest pixel.

    It stands for `Resize(resize_px)` + `CenterCrop(crop_px)`, which rounds after resizing and so may differ by a pixel.
    """

    crop_px: int = 224
    resize_px: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.crop_px <= self.resize_px:
            raise FeedrateError(f"a centre crop of {self.crop_px} px must be within the {self.resize_px} px resized to")

    def rects(self, widths: Ints, heights: Ints, keys: Ints, draws: Draws) -> Rects:
        short = np.minimum(widths, heights)
        side = np.maximum(1, (2 * short * self.crop_px + self.resize_px) // (2 * self.resize_px))
        return _stack((widths - side) // 2, (heights - side) // 2, side, side)


@dataclass(frozen=True)
class PadCrop:
    """A window of the sample's own size, shifted by up to `padding_px` in each direction (He et al. on CIFAR: 4)."""

    padding_px: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.padding_px <= MAX_SIDE_PX:
            raise FeedrateError(f"padding of {self.padding_px} px must be 0 … {MAX_SIDE_PX} px")

    def rects(self, widths: Ints, heights: Ints, keys: Ints, draws: Draws) -> Rects:
        bits = draws("crop place 0", keys)
        steps = np.full(len(keys), 2 * self.padding_px, dtype=np.int64)
        left = _place(bits >> _32, steps) - self.padding_px
        top = _place(bits & _LOW_32, steps) - self.padding_px
        return _stack(left, top, widths, heights)


def _place(bits32: NDArray[np.uint64], slack: Ints) -> Ints:
    """An offset of 0 … slack, uniform."""
    return below(bits32, (slack + 1).astype(np.uint64)).astype(np.int64)


def _stack(left: Ints, top: Ints, width: Ints, height: Ints) -> Rects:
    return np.stack([left, top, width, height], axis=1).astype(np.int32)


def _rounded_root(squares_q24: NDArray[np.uint64]) -> Ints:
    """round(sqrt(x)), halves up, of Q24 numbers below 2**60, by integers alone."""
    root = np.sqrt(squares_q24.astype(np.float64)).astype(np.uint64)  # within 1 of the true root: mended next
    root -= root * root > squares_q24
    root += (root + np.uint64(1)) ** 2 <= squares_q24
    return ((root + np.uint64(2**11)) >> np.uint64(12)).astype(np.int64)


@lru_cache(maxsize=8)
def _ratio_table(low: float, high: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Aspect ratios at equal steps of their logarithm, and their inverses, in Q16: uint64 [4096] each.

    Decimal arithmetic rounds the same everywhere, which a C library's `exp` does not promise.
    """
    with localcontext() as context:
        context.prec = 40
        first, last = Decimal(low), Decimal(high)
        step = ((last / first).ln() / _RATIO_STEPS).exp()
        ratio = first * ((last / first).ln() / (2 * _RATIO_STEPS)).exp()  # the middle of the first step
        ratios, inverses = [], []
        for _ in range(_RATIO_STEPS):
            ratios.append(int((ratio * 65536).to_integral_value()))
            inverses.append(int((65536 / ratio).to_integral_value()))
            ratio *= step
    return np.array(ratios, dtype=np.uint64), np.array(inverses, dtype=np.uint64)
