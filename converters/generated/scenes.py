"""One generated photo: a subject somewhere among other things, lit, shadowed, and taken by a noisy camera.

Sizes, bytes and texture are those of ImageNet's photos, so that loading them costs the same. A photo depends on (seed,
split, number) and its subject alone.
"""

from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from .subjects import SUBJECTS, Plane, Rng, make_canvas

_SIZES_PX = [(500, 375), (375, 500), (500, 333), (333, 500), (400, 300), (500, 500)]
_SIZE_SHARES = [0.42, 0.14, 0.14, 0.06, 0.02, 0.03]  # the rest: any size, one in 20 a large one
_BANK_PX = 1024  # textures and noise are cut from squares of this side, made once a process
_LARGEST_PX = 1000


def photo(seed: int, split: str, number: int, subject: str) -> bytes:
    """A JPEG showing `subject`, a key of SUBJECTS."""
    rng = np.random.default_rng([seed, {"train": 0, "val": 1}[split], number])
    width, height = _size(rng)
    image = _surroundings(rng, width, height)
    if rng.random() < 0.5:  # out of focus
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 3))
    side = rng.uniform(0.6, 1.1) * min(width, height)
    _place(rng, image, subject, side)
    if rng.random() < 0.5:  # a second one, smaller
        _place(rng, image, subject, side * rng.uniform(0.35, 0.7))
    image = _camera(rng, image)
    subsampling = "444" if rng.random() < 0.6 else "420"
    return simplejpeg.encode_jpeg(image, int(rng.integers(88, 96)), "RGB", subsampling)


def _size(rng: Rng) -> tuple[int, int]:
    """Width and height, pixels; 468×401 on average, as ImageNet's."""
    kind = rng.choice(len(_SIZES_PX) + 1, p=[*_SIZE_SHARES, 1 - sum(_SIZE_SHARES)])
    if kind < len(_SIZES_PX):
        return _SIZES_PX[kind]
    low, high = (600, _LARGEST_PX) if rng.random() < 0.25 else (130, 560)
    return int(rng.integers(low, high)), int(rng.integers(low, high))


@lru_cache(maxsize=1)
def _textures() -> NDArray[np.float32]:
    """float32 [4, side, side], about -1 … 1: noise whose power falls with frequency, as that of photos does."""
    rng = np.random.default_rng(2026)
    planes = []
    for falloff in (0.5, 0.62, 0.75, 0.9):
        plane = np.zeros((_BANK_PX, _BANK_PX), np.float32)
        for octave in range(2, 11):
            grid = rng.standard_normal((2**octave, 2**octave), np.float32)
            plane += falloff**octave * cv2.resize(grid, (_BANK_PX, _BANK_PX), interpolation=cv2.INTER_CUBIC)
        planes.append(plane / (2.5 * plane.std()))
    return np.stack(planes)


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.int16]:
    """int16 [side, side, 3]: noise of standard deviation 16, a little blurred, as cameras' software leaves it."""
    noise = np.random.default_rng(2027).standard_normal((_BANK_PX, _BANK_PX, 3), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.6)
    return np.round(noise * (16 / noise.std())).astype(np.int16)


def _cut(rng: Rng, bank: NDArray[np.generic], width: int, height: int) -> NDArray[np.generic]:
    """A random part of a bank, mirrored or not."""
    top, left = rng.integers(0, _BANK_PX - height + 1), rng.integers(0, _BANK_PX - width + 1)
    part = bank[top : top + height, left : left + width]
    return part[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]


def _surroundings(rng: Rng, width: int, height: int) -> NDArray[np.uint8]:
    """A few soft areas of random colours with other things in front of them, textured."""
    areas = rng.uniform(40, 225, (int(rng.integers(2, 5)), int(rng.integers(2, 5)), 3)).astype(np.float32)
    areas = 0.3 * areas + 0.7 * areas.mean(axis=2, keepdims=True)  # nature is not that colourful
    scene = np.clip(cv2.resize(areas, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    _clutter(rng, scene)
    texture = _cut(rng, _textures()[rng.integers(4)], width, height) * np.float32(rng.uniform(10, 50))
    return cv2.add(scene, cv2.merge([texture] * 3), dtype=cv2.CV_8U)


def _clutter(rng: Rng, image: NDArray[np.uint8]) -> None:
    """Blobs, bars and corners of other things."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(4, 13)):
        strong = rng.uniform(20, 235, 3)
        tint = (0.3 * strong + 0.7 * strong.mean()).tolist()
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = rng.uniform(0.03, 0.22) * min(width, height)
        kind = rng.integers(3)
        if kind == 0:
            axes = (max(1, int(size)), max(1, int(size * rng.uniform(0.3, 1))))
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, tint, -1, cv2.LINE_AA)
        elif kind == 1:
            far = (int(x + rng.normal() * 3 * size), int(y + rng.normal() * 3 * size))
            cv2.line(image, (x, y), far, tint, max(1, int(size * rng.uniform(0.05, 0.4))), cv2.LINE_AA)
        else:
            corners = np.array([x, y]) + rng.normal(size=(4, 2)) * size
            cv2.fillConvexPoly(image, cv2.convexHull(corners.astype(np.int32)), tint, cv2.LINE_AA)


def _place(rng: Rng, image: NDArray[np.uint8], subject: str, side_px: float) -> None:
    """Draw the subject somewhere, lit from one side, textured, and with a soft shadow."""
    height, width = image.shape[:2]
    side = max(24, int(side_px))
    x, y = (int(rng.uniform(*sorted((-0.1 * side, length - 0.9 * side)))) for length in (width, height))
    canvas = make_canvas(side, rng.uniform(0, 2 * np.pi))
    coverage, tint = SUBJECTS[subject](canvas, rng)
    texture = _cut(rng, _textures()[rng.integers(4)], side, side) * np.float32(rng.uniform(0.05, 0.25))
    direction = rng.uniform(0, 2 * np.pi)
    light = np.float32(0.85) + 0.3 * (np.cos(direction) * canvas.u + np.sin(direction) * canvas.v) + texture
    pixels = tint * (light.astype(np.float32) * 255)[..., None]
    shadow = cv2.blur(coverage, (side // 8 + 1, side // 8 + 1))
    shift = max(1, side // 16)
    _blend(image, np.zeros(3, np.float32), shadow * np.float32(rng.uniform(0.2, 0.6)), x + shift, y + shift)
    _blend(image, pixels, coverage, x, y)


def _blend(image: NDArray[np.uint8], pixels: Plane, coverage: Plane, x: int, y: int) -> None:
    """Lay `pixels` over the image with their upper left corner at (x, y), as far as they are inside."""
    height, width = image.shape[:2]
    rows, columns = slice(max(0, -y), height - y), slice(max(0, -x), width - x)
    coverage = coverage[rows, columns, None]
    target = image[max(0, y) :, max(0, x) :][: coverage.shape[0], : coverage.shape[1]]
    if pixels.ndim == 3:
        pixels = pixels[rows, columns]
    target[:] = np.clip(target + coverage * (pixels - target), 0, 255).astype(np.uint8)


def _camera(rng: Rng, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Exposure, contrast and white balance; a gradient of light; the sensor's noise."""
    height, width = image.shape[:2]
    values = np.arange(256) / 255
    curves = np.empty((1, 256, 3), np.uint8)
    gamma, gain = rng.uniform(0.7, 1.4), rng.uniform(0.8, 1.15)
    for channel in range(3):
        curve = values**gamma * gain * rng.uniform(0.92, 1.08)
        curves[0, :, channel] = np.clip(curve * 255, 0, 255)
    image = cv2.LUT(image, curves)
    if rng.random() < 0.5:
        corners = rng.uniform(0.55, 1.15, (2, 2)).astype(np.float32)
        light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
        image = cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)
    noise = _cut(rng, _grain(), width, height)
    strength = rng.uniform(0.25, 0.85)
    return cv2.addWeighted(image, 1.0, np.ascontiguousarray(noise), strength, 0, dtype=cv2.CV_8U)
