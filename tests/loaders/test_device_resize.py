"""Resizing by tensor operations has Pillow's bits, whatever the threads, the device and the size of its parts."""

import numpy as np
import PIL
import pytest
import torch
from devices import on_each_gpu
from pictures import smooth_picture
from PIL import Image
from torch.overrides import TorchFunctionMode

from loaders import device_resize
from loaders.device_resize import Cuts, cut_and_resize

# up to version 12 Pillow always began with the width, which moves some pixels of tall rectangles by a level
MOST_LEVELS = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1
FILL = (10, 130, 250)


class Pictures:
    """Pictures of many shapes, one after the other, and a rectangle of each."""

    def __init__(
        self, kind: str, size_px: int, past_border: bool = False, count: int = 48, cubic: bool = False
    ) -> None:
        self.cubic = cubic
        random = np.random.default_rng(size_px)
        self.widths, self.heights = random.integers(2, 150, (2, count))
        self.widths[:6], self.heights[:6] = size_px, (1, 2, size_px, size_px, 3 * size_px, 149)
        shapes = list(zip(self.heights.tolist(), self.widths.tolist(), strict=True))
        self.pictures = [
            random.integers(0, 256, (*shape, 3), dtype=np.uint8)
            if kind == "noise"
            else smooth_picture(*shape[::-1], number)
            for number, shape in enumerate(shapes)
        ]
        left, top = random.integers(0, self.widths // 2 + 1), random.integers(0, self.heights // 2 + 1)
        width, height = random.integers(1, self.widths - left + 1), random.integers(1, self.heights - top + 1)
        self.rects = np.stack([left, top, width, height], axis=1)
        if past_border:
            self.rects += random.integers([-30, -30, 30, 30], [30, 30, 60, 60], (count, 4))
        self.rects[:6] = [(0, 0, width, height) for height, width in shapes[:6]]
        self.flips = random.random(count) < 0.5
        self.size_px = size_px
        self.pixels = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in self.pictures]))

    def cuts(self) -> Cuts:
        areas = self.widths * self.heights
        starts = np.cumsum(areas) - areas
        return Cuts(starts, self.widths, self.heights, self.rects, self.flips, FILL, self.size_px, self.cubic)

    def by_pillow(self, row: int) -> np.ndarray:
        left, top, width, height = self.rects[row].tolist()
        part = Image.new("RGB", (width, height), FILL)
        part.paste(Image.fromarray(self.pictures[row]), (-left, -top))
        how = Image.Resampling.BICUBIC if self.cubic else Image.Resampling.BILINEAR
        part = part.resize((self.size_px, self.size_px), how)
        return np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flips[row] else part)


@pytest.mark.parametrize("cubic", [False, True], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
@pytest.mark.parametrize("past_border", [False, True])
@pytest.mark.parametrize("size_px", [1, 7, 32, 64, 224])
def test_the_bits_are_pillows(kind, past_border, size_px, cubic):
    pictures = Pictures(kind, size_px, past_border, cubic=cubic)
    made = cut_and_resize(pictures.pixels, pictures.cuts())
    assert made.shape == (48, size_px, size_px, 3) and made.dtype == torch.uint8 and made.is_contiguous()
    for row in range(48):
        difference = np.abs(made[row].numpy().astype(int) - pictures.by_pillow(row))
        assert difference.max() <= MOST_LEVELS, (row, pictures.rects[row])


def test_both_orders_of_directions_occur():
    pictures = Pictures("noise", 32)
    assert 5 < device_resize._lines_first(pictures.cuts()).sum() < 43


def test_neither_threads_nor_the_size_of_parts_change_a_bit(monkeypatch):
    pictures = Pictures("noise", 64, past_border=True)
    whole = cut_and_resize(pictures.pixels, pictures.cuts())
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert torch.equal(cut_and_resize(pictures.pixels, pictures.cuts()), whole)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(device_resize, "_CHUNK_BYTES_CPU", 1)
    assert torch.equal(cut_and_resize(pictures.pixels, pictures.cuts()), whole)


def test_scratch_memory_is_bounded():
    cuts = Pictures("noise", 64, count=200).cuts()
    longer = cuts.rects[:, 2:].max(axis=1)
    chunks = list(device_resize._chunks(cuts, 8 << 20))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(200)) and len(chunks) > 3
    for rows in chunks:
        # index and pixels of the windows, then sums and a tap of the first pass, as integers
        side = int(longer[rows].max())
        assert len(rows) == 1 or len(rows) * (8 * side * side + 3 * 4 * 2 * side * 64) <= 8 << 20


def test_rows_without_area_become_zero():
    pictures = Pictures("noise", 32)
    expected = cut_and_resize(pictures.pixels, pictures.cuts())
    pictures.rects[[3, 40, 47]] = 0
    made = cut_and_resize(pictures.pixels, pictures.cuts())
    assert not made[[3, 40, 47]].any()
    others = [row for row in range(48) if row not in (3, 40, 47)]
    assert torch.equal(made[others], expected[others])
    pictures.rects[:] = 0
    nothing = torch.empty((0, 3), dtype=torch.uint8)
    assert not cut_and_resize(pictures.pixels, pictures.cuts()).any()
    assert not cut_and_resize(nothing, pictures.cuts()).any()


class DividingAsCuda(TorchFunctionMode):
    """Tensors divided by a number are multiplied by its reciprocal, as torch's kernels for CUDA do."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.__truediv__, torch.Tensor.div) and isinstance(args[1], int | float):
            return args[0] * (1.0 / args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cubic", [False, True], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize(("size_px", "side_px"), [(224, 160), (192, 320), (49, 61)])
def test_weights_do_not_depend_on_how_a_device_divides_by_numbers(size_px, side_px, cubic):
    def weights():
        made = device_resize._Weights(torch.tensor([[side_px]]), side_px, torch.tensor([[False]]), size_px, cubic)
        return torch.stack([made._first, *made._taps])

    with DividingAsCuda():
        assert (torch.tensor(side_px, dtype=torch.float64) / size_px).item() != side_px / size_px
        as_on_cuda = weights()
    assert torch.equal(as_on_cuda, weights())


@on_each_gpu
@pytest.mark.parametrize("cubic", [False, True], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("size_px", [32, 224])
def test_a_gpu_has_the_same_bits(size_px, cubic, device):
    pictures = Pictures("noise", size_px, past_border=True, cubic=cubic)
    expected = cut_and_resize(pictures.pixels, pictures.cuts())
    assert torch.equal(cut_and_resize(pictures.pixels.to(device), pictures.cuts()).cpu(), expected)
