"""Cut, resize and flip a whole batch by tensor operations, on the device where the pixels are.

The arithmetic is Pillow's (from version 13 on), integer for integer: antialiased bilinear or bicubic weights as 22-bit
fractions, one direction after the other, each rounded to 8 bits. So the bits are those of mode `exact`, or `bicubic`,
on every device and for every number of threads, and none of torch's settings (TF32, reduced precision) can touch them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .plan import PlanRows
from .transfer import send

_PRECISION_BITS = 22  # Pillow's for 8-bit channels: 32 bits less 8 of the pixel and 2 in reserve
_CHUNK_BYTES_CPU = 8 << 20  # of scratch; more is no faster where a cache must hold it
_CHUNK_BYTES = 512 << 20

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cuts:
    """Which parts of which pictures a batch of B rows is made of; all on the host.

    starts          int64 [B]: where each row's picture begins, in pixels
    widths, heights int64 [B]: the pictures' sizes
    rects           int64 [B, 4] of (left, top, width, height), may reach past the border; without area: the row is 0
    flips           bool [B], mirror left to right
    fill            uint8 value per channel beyond the border
    size_px         side of the square output
    cubic           resized as in mode `bicubic`, and not as in `exact`
    """

    starts: Ints
    widths: Ints
    heights: Ints
    rects: Ints
    flips: NDArray[np.bool_]
    fill: tuple[int, int, int]
    size_px: int
    cubic: bool = False

    @classmethod
    def of(cls, rows: PlanRows, starts: Ints, widths: Ints, heights: Ints, cubic: bool = False) -> "Cuts":
        """The plan's rows, whose pictures lie at `starts`. Those of padding may be any numbers."""
        shown = rows.rects[:, 2:].all(axis=1)
        return cls(
            np.where(shown, starts, 0),
            np.where(shown, widths, 1),
            np.where(shown, heights, 1),
            rows.rects.astype(np.int64),
            rows.flips,
            rows.fill,
            rows.size_px,
            cubic,
        )


def cut_and_resize(pixels: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """uint8 [B, size_px, size_px, 3], contiguous, on the device of `pixels`, uint8 [P, 3]: pictures row by row.

    Works on a part of the batch at a time, so that its scratch memory is bounded.
    """
    size = cuts.size_px
    out = torch.empty((len(cuts.rects), size, size, 3), dtype=torch.uint8, device=pixels.device)
    if not len(pixels):  # a batch of nothing but padding
        return out.zero_()
    num_bytes = _CHUNK_BYTES_CPU if pixels.device.type == "cpu" else _CHUNK_BYTES
    for rows in _chunks(cuts, num_bytes):
        part = _Part(pixels, cuts, rows)
        out[part.rows] = part.resized()
    return out


def _chunks(cuts: Cuts, num_bytes: int) -> Iterator[Ints]:
    """Rows that are worked on together: alike in size, since each costs what the largest does, and in procedure."""
    longer = cuts.rects[:, 2:].max(axis=1, initial=1)
    kinds = _lines_first(cuts) + 2 * (cuts.rects[:, 2:] == cuts.size_px).all(axis=1)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        members = members[np.argsort(-longer[members], kind="stable")]
        start = 0
        while start < len(members):
            side = int(longer[members[start]])
            # of the window its index and pixels; of the first pass a tap, as bytes and as integers, and the sums
            row_bytes = 11 * side * side + 39 * side * cuts.size_px
            stop = start + max(1, num_bytes // row_bytes)
            yield members[start:stop]
            start = stop


def _lines_first(cuts: Cuts) -> NDArray[np.bool_]:
    """Whether Pillow resizes along the height first: where it shrinks, and by far more pixels than the width."""
    width, height = cuts.rects[:, 2], cuts.rects[:, 3]
    first: NDArray[np.bool_] = (height > cuts.size_px) & (height - cuts.size_px > 2 * (width - cuts.size_px))
    return first


class _Part:
    """Some rows of the batch, all made by the same procedure.

    rows  int64 [n], on the device: which they are
    """

    def __init__(self, pixels: torch.Tensor, cuts: Cuts, rows: Ints) -> None:
        rects = cuts.rects[rows]
        sides = np.stack([cuts.widths[rows], cuts.heights[rows]], axis=1)
        self._pixels = pixels
        self._fill = cuts.fill
        self._size = cuts.size_px
        self._cubic = cuts.cubic
        self._most_w, self._most_h = rects[:, 2:].max(axis=0, initial=1).tolist()
        self._is_cut_only = bool((rects[:, 2:] == cuts.size_px).all())
        self._lines_first = bool(_lines_first(cuts)[rows[0]])
        self._reaches_past = bool((rects[:, :2] < 0).any() or (rects[:, :2] + rects[:, 2:] > sides).any())
        host = np.stack([rows, cuts.starts[rows], *sides.T, *rects.T, cuts.flips[rows]])
        self.rows, *numbers = send(torch.from_numpy(host), pixels.device)
        self._starts, self._sample_w, self._sample_h, self._left, self._top, self._w, self._h, flips = (
            number[:, None] for number in numbers
        )
        self._flips = flips > 0

    def resized(self) -> torch.Tensor:
        """uint8 [n, size, size, 3]"""
        columns = torch.arange(self._most_w, device=self._pixels.device)[None]
        lines = torch.arange(self._most_h, device=self._pixels.device)[None]
        if self._is_cut_only:
            columns = torch.where(self._flips, self._size - 1 - columns, columns)
            return self._window(columns, lines, lines_first=True)
        window = self._window(columns, lines, self._lines_first)
        along_x = _Weights(self._w, self._most_w, self._flips, self._size, self._cubic)
        along_y = _Weights(self._h, self._most_h, torch.zeros_like(self._flips), self._size, self._cubic)
        if self._lines_first:
            return along_x.sums(along_y.sums(window).transpose(1, 2)).transpose(1, 2)
        return along_y.sums(along_x.sums(window).transpose(1, 2))

    def _window(self, columns: torch.Tensor, lines: torch.Tensor, lines_first: bool) -> torch.Tensor:
        """uint8 [n, H, W, 3], or [n, W, H, 3]: these columns and lines of each rectangle; beyond its end, anything."""
        x, y = self._left + columns, self._top + lines
        index_x = self._starts + torch.minimum(x.clamp_min(0), self._sample_w - 1)
        index_y = torch.minimum(y.clamp_min(0), self._sample_h - 1) * self._sample_w
        inside_x, inside_y = (x >= 0) & (x < self._sample_w), (y >= 0) & (y < self._sample_h)
        if lines_first:
            index, inside = index_y[:, :, None] + index_x[:, None], inside_y[:, :, None] & inside_x[:, None]
        else:
            index, inside = index_x[:, :, None] + index_y[:, None], inside_x[:, :, None] & inside_y[:, None]
        window = self._pixels[index]
        if self._reaches_past:
            fill = send(torch.tensor(self._fill, dtype=torch.uint8), self._pixels.device)
            window = torch.where(inside[..., None], window, fill)
        return window


class _Weights:
    """Pillow's weights in one direction: `precompute_coeffs` and `normalize_coeffs_8bpc`.

    sides  int64 [n, 1] become `size`, the longest of them `most`;  flips  bool [n, 1]: the output counts backwards

    All in double precision and in Pillow's order of operations, which IEEE 754 lets round in one way only.
    """

    def __init__(self, sides: torch.Tensor, most: int, flips: torch.Tensor, size: int, cubic: bool) -> None:
        self._size = size
        # the triangle's weights add up to 1 within a few of their 2**22 parts: no sum rounds to more than 255
        self._overshoots = cubic
        reach, weigh = (2.0, _cubic) if cubic else (1.0, _triangle)
        # Pillow keeps room for more, whose weights are 0
        num_taps = math.ceil(2 * reach * max(most / size, 1.0))
        numbers = torch.arange(size, device=sides.device)
        # by a tensor, since CUDA divides by a number as if to multiply by its reciprocal: that rounds twice
        scale = sides.to(torch.float64) / torch.full_like(sides, size, dtype=torch.float64)
        stretch = scale.clamp_min(1.0)
        support = reach * stretch
        center = (torch.where(flips, size - 1 - numbers, numbers) + 0.5) * scale  # [n, size]
        self._first = (center - support + 0.5).clamp_min(0.0).to(torch.int64)
        stop = torch.minimum((center + support + 0.5).to(torch.int64), sides)
        inverse = 1.0 / stretch
        taps, total = [], torch.zeros_like(center)
        for tap in range(num_taps):  # added one by one, as Pillow does: another order may round otherwise
            place = self._first + tap
            weight = weigh(((place - center + 0.5) * inverse).abs())
            taps.append(torch.where(place < stop, weight, 0.0))
            total = total + taps[-1]
        total = torch.where(total != 0, total, 1.0)  # of sides of 0 nothing is taken
        parts = (weight / total * (1 << _PRECISION_BITS) for weight in taps)
        self._taps = [(part + torch.where(part < 0, -0.5, 0.5)).to(torch.int32) for part in parts]

    def sums(self, lines: torch.Tensor) -> torch.Tensor:
        """uint8 [n, size, M, 3] of `lines`, uint8 [n, L, M, 3]."""
        num_rows, length, *line = lines.shape
        flat = lines.reshape(num_rows * length, -1)
        starts = torch.arange(num_rows, device=flat.device)[:, None] * length
        sums = torch.full(
            (num_rows * self._size, flat.shape[1]), 1 << (_PRECISION_BITS - 1), dtype=torch.int32, device=flat.device
        )
        for tap, weight in enumerate(self._taps):
            places = starts + (self._first + tap).clamp_max(length - 1)
            sums.addcmul_(flat.index_select(0, places.view(-1)).to(torch.int32), weight.view(-1, 1))
        sums >>= _PRECISION_BITS
        if self._overshoots:
            sums.clamp_(0, 255)
        return sums.to(torch.uint8).view(num_rows, self._size, *line)


def _triangle(distances: torch.Tensor) -> torch.Tensor:
    """Pillow's `bilinear_filter`."""
    return (1.0 - distances).clamp_min(0.0)


def _cubic(distances: torch.Tensor) -> torch.Tensor:
    """Pillow's `bicubic_filter`, Keys' with a = -1/2, in its order of operations."""
    a = -0.5
    near = ((a + 2.0) * distances - (a + 3.0)) * distances * distances + 1.0
    far = (((distances - 5.0) * distances + 8.0) * distances - 4.0) * a
    return torch.where(distances < 1.0, near, torch.where(distances < 2.0, far, 0.0))
