"""What an image costs a loader, from its stored bytes and its pixels."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredImages:
    """What stored images are like, on average: bytes and pixels of one, and whether they are raw pixels."""

    num_bytes: float
    num_pixels: float
    is_raw: bool = False

    def scaled(self, num_bytes: float, num_pixels: float) -> "StoredImages":
        """The same format, so many times the bytes and pixels."""
        return StoredImages(self.num_bytes * num_bytes, self.num_pixels * num_pixels, self.is_raw)


@dataclass(frozen=True)
class DecodeModel:
    """Microseconds an image: `own`, and of a JPEG for each byte (its entropy coding) and pixel (transform, colours,
    resizing), of a raw one for each byte (reading and resizing). None is below 0."""

    own: float
    jpeg_byte: float
    jpeg_pixel: float
    raw_byte: float

    def cost_us(self, images: StoredImages) -> float:
        """Of one, on average: the model is linear, so means are all it needs."""
        return float(_terms(images) @ np.array([self.own, self.jpeg_byte, self.jpeg_pixel, self.raw_byte]))


def fit_decode_model(measured: Sequence[tuple[StoredImages, float]]) -> DecodeModel:
    """From what images of a few formats took, in microseconds; the least squares of the errors as shares.

    With fewer formats than terms, the terms that explain most with the fewest.
    """
    rows = np.stack([_terms(images) / cost_us for images, cost_us in measured])
    best, least = np.zeros(rows.shape[1]), np.inf
    for count in range(1, rows.shape[1] + 1):
        for chosen in itertools.combinations(range(rows.shape[1]), count):
            part = rows[:, chosen]
            scale = np.maximum(np.abs(part).max(axis=0), 1e-300)
            values = np.linalg.lstsq(part / scale, np.ones(len(rows)), rcond=None)[0] / scale
            error = float(np.square(part @ values - 1).sum())
            if (values >= 0).all() and error < least - 1e-6:
                best = np.zeros(rows.shape[1])
                best[list(chosen)] = values
                least = error
    return DecodeModel(*map(float, best))


def _terms(images: StoredImages) -> NDArray[np.float64]:
    if images.is_raw:
        return np.array([1.0, 0.0, 0.0, images.num_bytes])
    return np.array([1.0, images.num_bytes, images.num_pixels, 0.0])
