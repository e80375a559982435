"""A split decoded once, as uint8 pixels in the memory of a device."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from .api import LoadProgress
from .errors import LoaderError
from .pixels import Decoder, load_rgb
from .records import ChannelStatistics, Records
from .slabs import allocate

_CHUNK_PIXELS = 16 << 20  # decoded at a time before they go to another device, and before Ctrl-C is heard

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ResidentPixels:
    """Pictures of a split, one after the other, each with a border of the plan's fill.

    pixels          uint8 [P, 3] on the device
    starts          int64 [N]: where each picture with its border begins, in pixels
    widths, heights int64 [N]: sizes with the border, which is `border` pixels wide on each side
    is_held         bool [N]: those that are there at all
    bad             why those that could not be decoded could not; their pixels are anything
    """

    pixels: torch.Tensor
    starts: Ints
    widths: Ints
    heights: Ints
    is_held: NDArray[np.bool_]
    border: int
    bad: dict[int, LoaderError]


@dataclass(frozen=True)
class Layout:
    """What is to be held: the samples of `pool` (None: all), each with a border of `border` pixels."""

    records: Records
    pool: Ints | None
    border: int

    def is_held(self) -> NDArray[np.bool_]:
        """bool [N]"""
        held = np.full(len(self.records), self.pool is None)
        if self.pool is not None:
            held[self.pool] = True
        return held

    def sides(self) -> tuple[Ints, Ints]:
        """int64 [N] widths and heights with the border."""
        return (
            self.records.widths.astype(np.int64) + 2 * self.border,
            self.records.heights.astype(np.int64) + 2 * self.border,
        )

    def num_bytes(self) -> int:
        """What it takes on the device."""
        widths, heights = self.sides()
        return 3 * int((widths * heights)[self.is_held()].sum())


def load_pixels(
    layout: Layout,
    device: torch.device,
    fill: tuple[int, int, int],
    num_threads: int,
    progress: LoadProgress | None = None,
) -> ResidentPixels:
    """Decode the samples by `num_threads` threads. Ctrl-C ends it within a chunk, and nothing stays."""
    (widths, heights), is_held = layout.sides(), layout.is_held()
    ends = np.cumsum(np.where(is_held, widths * heights, 0))
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    remedy = "loader 'resident' keeps the whole split decoded: take another one, or a subset"
    pixels = allocate((int(ends[-1]) if len(ends) else 0, 3), remedy, device)
    loaded = ResidentPixels(pixels, starts, widths, heights, is_held, layout.border, {})
    with ThreadPoolExecutor(num_threads, "feedrate-load") as pool:
        for first, stop in _chunks(ends):
            place = pixels[starts[first] : ends[stop - 1]]
            chunk = place if device.type == "cpu" else torch.empty(place.shape, dtype=torch.uint8)
            if layout.border:
                chunk[:] = torch.tensor(fill, dtype=torch.uint8)
            step = -(-(stop - first) // (4 * num_threads))
            parts = [range(start, min(start + step, stop)) for start in range(first, stop, step)]
            decode = partial(_decode, layout.records, loaded, int(starts[first]), chunk.numpy())
            for part, _ in zip(parts, pool.map(decode, parts), strict=True):
                if progress:
                    progress(part.stop, len(layout.records))
            if chunk is not place:
                place.copy_(chunk)
    return loaded


class DecodedRecords:
    """`loaders.records.Records` over pixels that lie in the host's memory without a border."""

    is_in_memory = True

    def __init__(self, records: Records, decoded: ResidentPixels) -> None:
        self._records = records
        self._decoded = decoded
        self._pixels = decoded.pixels.numpy()
        self.classes = records.classes
        self.labels = records.labels
        self.widths = records.widths
        self.heights = records.heights
        self.is_raw = np.ones(len(records), dtype=np.bool_)
        self.channels: ChannelStatistics | None = records.channels

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 [size], a view. Raises the error with which decoding ended."""
        if index in self._decoded.bad:
            raise self._decoded.bad[index]
        start = self._decoded.starts[index]
        stop = start + self._decoded.widths[index] * self._decoded.heights[index]
        return self._pixels[start:stop].reshape(-1)

    def where(self, index: int) -> str:
        return self._records.where(index)

    def close(self) -> None:
        pass  # what was decoded belongs to the loader, as do the records it came from


def _chunks(ends: Ints) -> Iterator[tuple[int, int]]:
    """Ranges [first, stop) of samples, each of at least one sample and else of at most `_CHUNK_PIXELS`."""
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + _CHUNK_PIXELS, side="right")))
        yield first, stop
        first = stop


def _decode(records: Records, loaded: ResidentPixels, offset: int, chunk: NDArray[np.uint8], part: range) -> None:
    """Decode the samples of `part` to where they belong in `chunk`, whose first pixel is the split's `offset`th."""
    decode = Decoder()
    border = loaded.border
    for index in part:
        if not loaded.is_held[index]:
            continue
        try:
            pixels = load_rgb(records, index, decode)
        except LoaderError as error:
            loaded.bad[index] = error  # told when its turn comes, as `on_bad` says
            continue
        width, height = int(loaded.widths[index]), int(loaded.heights[index])
        start = int(loaded.starts[index]) - offset
        picture = chunk[start : start + width * height].reshape(height, width, 3)
        picture[border : height - border, border : width - border] = pixels
