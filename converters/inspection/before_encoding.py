"""What the pixels of an image may have been before packing encoded it, told from its JPEG: for the channel statistics.

They were counted before. Encoding loses colours: a chroma value is one for four pixels, and what then lies outside of
0 … 255 is cut off when decoding, which can move a channel's mean by tens. The means of luma and chroma as they are
stored hardly move, though, and the means of red, green and blue are sums of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ..channel_statistics import channel_statistics

_BLOCK_PX = 8
_ROUNDED_LUMA = 1.1  # the most that a value moves by rounding when colours are converted, and in the inverse DCT
_ROUNDED_CHROMA = 1.6  # as well when four values become one
# red, green and blue from luma, and from blue and red chroma less 128
_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])


@dataclass(frozen=True)
class Doubt:
    """How far from the pixels of one decoded image those lay that it was encoded from, if it was.

    below, above  float64 [3]: the sum of a channel's values was that of the decoded ones and at least `below`, at most
                  `above` more
    """

    num_pixels: int
    below: NDArray[np.float64]
    above: NDArray[np.float64]


def doubt_about(jpeg: NDArray[np.uint8], histogram: NDArray[np.int64], quality: int | None) -> Doubt | None:
    """None for a JPEG that packing with this quality did not encode: it has other tables, or another subsampling.

    histogram  int64 [3, 256] of its decoded pixels;  quality  None where the manifest does not tell it
    """
    height, width, colorspace, subsampling = simplejpeg.decode_jpeg_header(jpeg)
    if (colorspace, subsampling) != ("YCbCr", "420"):
        return None
    data = jpeg.tobytes()
    tables = _tables(data)
    if quality is not None and tables != _own_tables(quality):
        return None
    num_pixels, decoded = width * height, (histogram * np.arange(256)).sum(1).astype(np.float64)
    lowest, highest = np.zeros(3), np.full(3, 255.0)
    if min(width, height) > 1:  # libjpeg does not give the chroma of a single row as it is stored
        means, errors = _means(data, width, height, tables)
        rgb, spread = _TO_RGB @ (means - [0, 128, 128]), np.abs(_TO_RGB) @ errors
        lowest, highest = (np.clip(rgb + side * spread, 0, 255) for side in (-1, 1))
    below, above = (num_pixels * bound - decoded for bound in (lowest, highest))
    return Doubt(num_pixels, below, above)


def statistics_bounds(
    histogram: NDArray[np.int64], doubts: Sequence[Doubt], num_encoded: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the most, float64 [2, 3] each, that mean and standard deviation can have been before encoding.

    histogram    int64 [3, 256] of all decoded pixels
    num_encoded  how many at most of the images that there are doubts about were encoded; None: surely all

    The means are near those found. Encoding can have taken any part of the deviations, so of these little can be told:
    where each of few pixels moved by 255 at most, theirs by no more than 255 √(share of those pixels), and in any case
    values in 0 … 255 deviate by √(mean (255 - mean)) at most.
    """
    found = np.array(channel_statistics(histogram))
    if not doubts:
        return found, found
    total = int(histogram[0].sum())
    below, above = (np.array([getattr(doubt, name) for doubt in doubts]) for name in ("below", "above"))
    if num_encoded is not None:  # whichever they were
        below = np.sort(np.minimum(below, 0), axis=0)
        above = np.sort(np.maximum(above, 0), axis=0)[::-1]
    below, above = below[:num_encoded].sum(0), above[:num_encoded].sum(0)
    share = sum(sorted((doubt.num_pixels for doubt in doubts), reverse=True)[:num_encoded]) / total
    lowest_mean, highest_mean = found[0] + below / total, found[0] + above / total
    flattest = np.clip(127.5, lowest_mean, highest_mean)
    most = np.minimum(found[1] + 255 * share**0.5, (flattest * (255 - flattest)) ** 0.5)
    least = np.maximum(found[1] - 255 * share**0.5, 0)
    return np.array([lowest_mean, least]), np.array([highest_mean, most])


def _means(
    data: bytes, width: int, height: int, tables: Mapping[int, tuple[int, ...]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [3] each: the means of luma, blue and red chroma as stored, and how far they can have moved."""
    with Image.open(BytesIO(data)) as image:
        image.draft("L", image.size)
        luma = np.asarray(image)
    with Image.open(BytesIO(data)) as image:
        image.draft("YCbCr", (width // 2, height // 2))  # at half the size chroma comes as it is stored
        chroma = np.asarray(image)
    first, second = tables[0], tables[max(tables)]
    planes = [
        _Plane(luma, width, height, 1, first, _ROUNDED_LUMA),
        _Plane(chroma[..., 1], width, height, 2, second, _ROUNDED_CHROMA),
        _Plane(chroma[..., 2], width, height, 2, second, _ROUNDED_CHROMA),
    ]
    return np.array([plane.mean() for plane in planes]), np.array([plane.moved() for plane in planes])


@dataclass(frozen=True)
class _Plane:
    """Luma or a chroma of an image of `width` × `height` px.

    step     a value stands for so many pixels in a row and in a column, the last of one maybe for fewer
    table    64 quantisation steps;  rounded  see _ROUNDED_LUMA
    """

    values: NDArray[np.uint8]
    width: int
    height: int
    step: int
    table: tuple[int, ...]
    rounded: float

    def mean(self) -> float:
        """Over the image's pixels."""
        rows, columns = (
            np.minimum(self.step, side - self.step * np.arange(-(-side // self.step)))
            for side in (self.height, self.width)
        )
        return float(rows @ self.values.astype(np.float64) @ columns) / (self.width * self.height)

    def moved(self) -> float:
        """The most by which encoding can have moved the mean.

        A block's mean is its first coefficient, off by half a step at most. The errors of the others cancel in it, but
        where the image does not fill a block, or values are cut off at 0 or 255: there each may count. Over a block
        their root mean square is `rms` at most, and of some values in it the sum then follows from Cauchy's inequality.
        """
        rms = sum(step**2 for step in self.table) ** 0.5 / (2 * _BLOCK_PX)
        num_blocks = -(-self.values.shape[0] // _BLOCK_PX) * -(-self.values.shape[1] // _BLOCK_PX)
        num_whole = (self.height // self.step // _BLOCK_PX) * (self.width // self.step // _BLOCK_PX)
        at_edges = (self.values.size - num_whole * _BLOCK_PX**2) * (num_blocks - num_whole)
        cut_off = np.count_nonzero((self.values == 0) | (self.values == 255)) * num_blocks
        share = _BLOCK_PX * (at_edges**0.5 + cut_off**0.5) * self.step**2 / (self.width * self.height)
        return self.table[0] / (2 * _BLOCK_PX) + rms * share + self.rounded


def _tables(data: bytes) -> dict[int, tuple[int, ...]]:
    """The quantisation tables by their numbers: 0 is luma's and 1 chroma's in what this packer writes."""
    with Image.open(BytesIO(data)) as image:
        return {number: tuple(table) for number, table in getattr(image, "quantization", {}).items()}


@cache
def _own_tables(quality: int) -> dict[int, tuple[int, ...]]:
    pixels = np.zeros((16, 16, 3), np.uint8)
    return _tables(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420"))
