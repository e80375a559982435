"""Rectangles: distributed as torchvision's, inside their bounds, and the same for ever."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from loaders import crops
from loaders.counter_random import Draws
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
NUM_OURS = 200_000
# width, height, ratio, how many of torchvision's. With ratio 1 nothing is refused, so that the scale shows undisturbed.
CASES = {
    "landscape": (500, 375, RATIO, 25_000),
    "square": (224, 224, RATIO, 15_000),
    "mostly fallback, wide": (1000, 120, RATIO, 15_000),
    "mostly fallback, tall": (60, 400, RATIO, 15_000),
    "tiny": (16, 16, RATIO, 15_000),
    "scale alone": (300, 300, (1.0, 1.0), 40_000),
}


def rects_of(crop, width: int, height: int, count: int, seed: int = 0) -> np.ndarray:
    ids = np.arange(count, dtype=np.int64)
    return crop.rects(np.full(count, width), np.full(count, height), ids, Draws(seed, 0))


@lru_cache
def torchvision_rects(case: str) -> np.ndarray:
    """int64 [n, 4] of (left, top, width, height)."""
    width, height, ratio, count = CASES[case]
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = [TorchvisionCrop.get_params(image, list(SCALE), list(ratio)) for _ in range(count)]
    top, left, crop_h, crop_w = np.array(drawn).T
    return np.stack([left, top, crop_w, crop_h], axis=1)


def largest_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The two-sample Kolmogorov-Smirnov statistic."""
    points = np.union1d(ours, theirs)
    cdfs = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (ours, theirs)]
    return float(np.abs(cdfs[0] - cdfs[1]).max())


def gaps(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    def views(rects: np.ndarray) -> dict[str, np.ndarray]:
        left, top, width, height = rects.astype(np.float64).T
        return {
            "left": left, "top": top, "width": width, "height": height,
            "area": width * height, "aspect": np.round(width / height, 9), "spread": left * height - top * width,
        }  # fmt: skip

    mine, other = views(ours), views(theirs)
    return {name: largest_gap(mine[name], other[name]) for name in mine}


def worst_excess(case: str, crop) -> float:
    """The largest gap between our and torchvision's distributions, in units of what chance exceeds once in 10,000 runs.

    That is of all comparisons together: 6 cases × 7 quantities.
    """
    width, height, _, count = CASES[case]
    limit = math.sqrt(-math.log(1e-4 / (6 * 7) / 2) / 2) * math.sqrt(1 / NUM_OURS + 1 / count)
    return max(gaps(rects_of(crop, width, height, NUM_OURS), torchvision_rects(case)).values()) / limit


@pytest.mark.parametrize("case", CASES)
def test_random_resized_crops_are_distributed_as_torchvisions(case):
    assert worst_excess(case, RandomResizedCrop(SCALE, CASES[case][2])) < 1


@dataclass(frozen=True)
class UniformRatio(RandomResizedCrop):
    """A likely mistake: the ratio uniform instead of log-uniform."""

    def rects(self, widths, heights, ids, draws):
        table = crops._ratio_table
        low, high = self.ratio
        ratios = low + (np.arange(4096) + 0.5) / 4096 * (high - low)
        wrong = ((ratios * 65536).astype(np.uint64), (65536 / ratios).astype(np.uint64))
        crops._ratio_table = lambda low, high: wrong
        try:
            return super().rects(widths, heights, ids, draws)
        finally:
            crops._ratio_table = table


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        ("scale alone", RandomResizedCrop((0.08, 0.98), (1.0, 1.0))),
        ("scale alone", RandomResizedCrop((0.10, 1.0), (1.0, 1.0))),
        ("landscape", RandomResizedCrop(SCALE, (0.73, 4 / 3))),
        ("landscape", UniformRatio(SCALE, RATIO)),
    ],
    ids=["scale ends 2 % early", "scale starts 2 % late", "ratio starts early", "ratio uniform"],
)
def test_the_comparison_with_torchvision_notices_small_mistakes(case, wrong):
    assert worst_excess(case, wrong) > 1


@pytest.mark.parametrize(("width", "height"), [(1000, 120), (60, 400), (999, 7), (1, 50)])
def test_the_fallback_is_torchvisions(width, height):
    # scale 1 never fits such a sample, so that every attempt ends in the fallback
    ours = rects_of(RandomResizedCrop((1.0, 1.0), RATIO), width, height, 10)
    top, left, crop_h, crop_w = TorchvisionCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], list(RATIO))
    assert ours.tolist() == [[left, top, crop_w, crop_h]] * 10


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, crops.MAX_SIDE_PX),
    height=st.integers(1, crops.MAX_SIDE_PX),
    seed=st.integers(0, 2**31),
    scale=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted),
    ratio=st.tuples(st.floats(1 / 16, 16), st.floats(1 / 16, 16)).map(sorted),
)
def test_random_resized_crops_are_never_empty_and_never_reach_past_the_border(width, height, seed, scale, ratio):
    left, top, crop_w, crop_h = rects_of(RandomResizedCrop(tuple(scale), tuple(ratio)), width, height, 8, seed).T
    assert left.min() >= 0 and top.min() >= 0 and crop_w.min() >= 1 and crop_h.min() >= 1
    assert (left + crop_w).max() <= width and (top + crop_h).max() <= height


@given(st.integers(1, crops.MAX_SIDE_PX), st.integers(1, crops.MAX_SIDE_PX), st.integers(1, 512), st.integers(0, 512))
def test_centre_crops_are_the_square_of_the_formula(width, height, crop_px, extra):
    ((left, top, side, side_again),) = rects_of(CenterCrop(crop_px, crop_px + extra), width, height, 1).tolist()
    assert side == side_again == max(1, math.floor(min(width, height) * crop_px / (crop_px + extra) + 0.5))
    assert left == (width - side) // 2 and top == (height - side) // 2


def test_pad_crops_keep_the_size_and_use_every_shift_evenly():
    rects = rects_of(PadCrop(4), 32, 32, 81_000)
    assert np.all(rects[:, 2:] == 32)
    counts = np.zeros((9, 9))
    np.add.at(counts, (rects[:, 0] + 4, rects[:, 1] + 4), 1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 150  # 80 degrees of freedom: p = 4e-6


def test_rectangles_never_change():
    ids = np.array([0, 1, 2, 1_281_166])
    widths, heights = np.array([500, 333, 20, 1000]), np.array([375, 500, 20, 50])
    for crop, expected in GOLDEN_RECTS:
        assert crop.rects(widths, heights, ids, Draws(3, 5)).tolist() == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomResizedCrop(scale=(0.0, 1.0)),
        lambda: RandomResizedCrop(scale=(0.5, 0.4)),
        lambda: RandomResizedCrop(scale=(0.5, 1.1)),
        lambda: RandomResizedCrop(ratio=(1.2, 0.8)),
        lambda: CenterCrop(300, 256),
        lambda: CenterCrop(0, 256),
        lambda: PadCrop(-1),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(FeedrateError, match="must"):
        make()


GOLDEN_RECTS = [
    (RandomResizedCrop(), [[47, 52, 351, 315], [22, 93, 287, 244], [3, 8, 10, 11], [466, 0, 67, 50]]),
    (
        RandomResizedCrop((0.25, 1.0), (0.5, 2.0)),
        [[31, 55, 402, 311], [2, 41, 328, 448], [3, 5, 12, 14], [450, 0, 100, 50]],
    ),
    (CenterCrop(), [[86, 23, 328, 328], [21, 104, 291, 291], [1, 1, 18, 18], [478, 3, 44, 44]]),
    (PadCrop(4), [[-2, 3, 500, 375], [-4, 2, 333, 500], [-1, 3, 20, 20], [4, -4, 1000, 50]]),
]
