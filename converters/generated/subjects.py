"""The ten things the generated photos show, drawn as formulas over a small square.

Each takes a canvas (coordinates -1.1 … 1.1, already turned by a random angle) and returns the coverage (float [n, n],
0 … 1) and the colour (float [n, n, 3], 0 … 1). What makes a class is its shape and pattern: hues overlap with those of
other classes, no class depends on which side is left, and the pattern reaches the edges, so that a crop still tells.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
Rng = np.random.Generator


@dataclass(frozen=True)
class Canvas:
    """Coordinates of the pixels in the subject's frame: `u`, `v`, and the polar `r`, `angle`; all float32 [n, n]."""

    u: Plane
    v: Plane
    r: Plane
    angle: Plane
    px: float  # pixels a unit

    def inside(self, distance: Plane) -> Plane:
        """Coverage where a signed distance is negative, with an edge one pixel soft."""
        return np.clip(0.5 - distance * self.px, 0, 1)

    def mix(self, where: Plane, first: Plane, second: Plane) -> Plane:
        """`first` where `where` is 0 and `second` where it is 1."""
        return first + where[..., None] * (second - first)


def make_canvas(side_px: int, turn: float) -> Canvas:
    """A canvas of side_px × side_px, turned by `turn` radians."""
    line = np.linspace(-1.1, 1.1, side_px, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = cos * x - sin * y, sin * x + cos * y
    return Canvas(u, v, np.sqrt(u * u + v * v), np.arctan2(v, u), side_px / 2.2)


def colour(rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Plane:
    """A random colour of these ranges; a hue runs from 0 to 1 around the circle and may pass 1."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, np.float32)


def _wave(canvas: Canvas, phase: Plane, sharpness: float = 0.12) -> Plane:
    """0 and 1 in turn, two changes each 2π of `phase`, with soft changes."""
    return np.clip(0.5 + np.sin(phase) / (2 * sharpness), 0, 1)


def _striped_ball(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    bend = canvas.v / np.sqrt(np.maximum(0.05, 1 - 0.8 * canvas.u**2))
    stripes = _wave(canvas, bend * rng.uniform(9, 12) + rng.uniform(0, 6.3), 0.2)
    first, second = colour(rng, (0.93, 1.07), (0.65, 0.95), (0.6, 0.95)), colour(rng, (0, 1), (0, 0.2), (0.8, 1))
    ball = canvas.mix(stripes, first, second)
    light = np.sqrt(np.maximum(0.15, 1.05 - canvas.r**2))[..., None]
    return canvas.inside(canvas.r - 1), ball * light


def _chessboard(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    frequency = rng.uniform(7, 10)
    squares = np.sin(canvas.u * frequency) * np.sin(canvas.v * frequency)
    where = np.clip(0.5 + squares * 6, 0, 1)
    first, second = colour(rng, (0, 1), (0.1, 0.4), (0.05, 0.25)), colour(rng, (0.02, 0.2), (0.03, 0.3), (0.8, 1))
    board = np.maximum(np.abs(canvas.u), np.abs(canvas.v)) - 0.8
    return canvas.inside(board), canvas.mix(where, first, second)


def _flower(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    petals = rng.integers(8, 14)
    outline = 0.66 + 0.3 * np.abs(np.cos(canvas.angle * petals / 2))
    petal = colour(rng, (0.8, 0.96), (0.5, 0.95), (0.8, 1))
    shade = (0.55 + 0.45 * np.abs(np.cos(canvas.angle * petals / 2)))[..., None]
    heart = colour(rng, (0.02, 0.15), (0.5, 0.9), (0.2, 0.5))
    where = canvas.inside(canvas.r - rng.uniform(0.26, 0.36))
    return canvas.inside(canvas.r - outline), canvas.mix(where, petal * shade, heart)


def _starfish(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    ray = np.abs((canvas.angle * 5 / (2 * np.pi)) % 1 - 0.5) * 2  # 0 between two arms, 1 along one
    outline = 0.28 + 0.72 * ray**2.2
    skin = colour(rng, (0.03, 0.13), (0.65, 0.95), (0.75, 1))
    bumps = np.clip(np.sin(canvas.r * 26) * np.sin(canvas.angle * 25) * 2, 0, 1)
    ridge = (0.6 + 0.4 * ray)[..., None]
    return canvas.inside((canvas.r - outline) * 0.6), canvas.mix(bumps * 0.6, skin * ridge, np.float32(1) * ridge)


def _leaf(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    half_width = 0.5 * np.maximum(0, 1 - canvas.u**2)
    blade = colour(rng, (0.22, 0.4), (0.55, 0.95), (0.4, 0.8))
    veins = np.abs(np.sin((canvas.u - np.abs(canvas.v) * 0.9) * rng.uniform(12, 16)))
    rib = np.abs(canvas.v) * 14
    where = np.clip(1 - np.minimum(veins * 3.2, rib), 0, 1) * 0.8
    return canvas.inside(np.abs(canvas.v) - half_width), canvas.mix(where, blade, blade * 0.3 + 0.6)


def _brick_wall(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    rows = rng.uniform(3.2, 4.5)
    row = np.floor(canvas.v * rows)
    along = (canvas.u * rows * 0.5 + 0.5 * (row % 2)) % 1
    joint = np.maximum(np.abs(along - 0.5) * 2 * 1.0 > 0.9, np.abs((canvas.v * rows) % 1 - 0.5) * 2 > 0.82).astype(
        np.float32
    )
    brick = colour(rng, (0.98, 1.06), (0.5, 0.8), (0.4, 0.7))
    tint = (0.8 + 0.4 * ((np.floor(canvas.u * rows * 0.5 + 0.5 * (row % 2)) * 0.37 + row * 0.61) % 1))[..., None]
    wall = np.maximum(np.abs(canvas.u) - 0.98, np.abs(canvas.v) - 0.72)
    return canvas.inside(wall), canvas.mix(joint, brick * tint, colour(rng, (0, 1), (0, 0.15), (0.6, 0.85)))


def _spotted_egg(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    frequency = rng.uniform(7.5, 9.5)
    spots = np.cos(canvas.u * frequency) + np.cos(canvas.v * frequency)
    where = np.clip((spots - 0.75) * 4, 0, 1)
    shell, spot = colour(rng, (0.42, 0.58), (0.3, 0.7), (0.8, 1)), colour(rng, (0.5, 1.0), (0.4, 0.9), (0.1, 0.35))
    radius = canvas.u**2 + (canvas.v * 1.35) ** 2
    light = np.sqrt(np.maximum(0.2, 1.1 - radius))[..., None]
    return canvas.inside((np.sqrt(radius) - 1) * 0.8), canvas.mix(where, shell, spot) * light


def _wheel(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    num_spokes = int(rng.integers(7, 12))
    offset = np.abs((canvas.angle * num_spokes / (2 * np.pi)) % 1 - 0.5) * (2 * np.pi / num_spokes) * canvas.r
    tyre = np.abs(canvas.r - 0.88) - 0.12
    parts = np.minimum(np.minimum(tyre, canvas.r - 0.18), np.maximum(offset - 0.04, canvas.r - 0.9))
    rubber, metal = colour(rng, (0, 1), (0, 0.3), (0.05, 0.25)), colour(rng, (0.5, 1.2), (0, 0.3), (0.6, 0.95))
    return canvas.inside(parts), canvas.mix(canvas.inside(0.76 - canvas.r), metal, rubber)


def _fence(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    frequency = rng.uniform(2.4, 3.4)
    across = np.abs((canvas.u * frequency) % 1 - 0.5) / frequency
    top = 0.75 - across * 1.5
    pickets = np.maximum(across - 0.28 / frequency, np.abs(canvas.v) - top)
    rails = np.maximum(np.abs(np.abs(canvas.v) - 0.4) - 0.07, np.abs(canvas.u) - 1)
    wood = colour(rng, (0.08, 0.17), (0.35, 0.8), (0.65, 0.95))
    grain = (0.85 + 0.15 * np.sin(canvas.u * 70 + 3 * np.sin(canvas.v * 5)))[..., None]
    inside = np.maximum(np.minimum(pickets, rails), np.abs(canvas.u) - 1.02)
    return canvas.inside(inside), wood * grain


def _dartboard(canvas: Canvas, rng: Rng) -> tuple[Plane, Plane]:
    rings = _wave(canvas, canvas.r * rng.uniform(15, 20) + 1.5, 0.2)
    first, second = colour(rng, (0.58, 0.76), (0.6, 0.95), (0.5, 0.95)), colour(rng, (0, 1), (0, 0.15), (0.8, 1))
    return canvas.inside(canvas.r - 0.98), canvas.mix(rings, first, second)


SUBJECTS: dict[str, Callable[[Canvas, Rng], tuple[Plane, Plane]]] = {
    "striped-ball": _striped_ball,
    "chessboard": _chessboard,
    "flower": _flower,
    "starfish": _starfish,
    "leaf": _leaf,
    "brick-wall": _brick_wall,
    "spotted-egg": _spotted_egg,
    "wheel": _wheel,
    "fence": _fence,
    "dartboard": _dartboard,
}
