"""Samples that are stored nowhere: for ceilings, tests and a first run without data."""

import numpy as np
from numpy.typing import NDArray

from .counter_random import draw, stream_key
from .errors import FeedrateError
from .records import ChannelStatistics


def hashed_pixels(seed: int, num_bytes: int) -> NDArray[np.uint8]:
    """uint8 [num_bytes], uniform and the same everywhere."""
    words = draw(stream_key(seed, 0, "pixels"), np.arange(-(-num_bytes // 8), dtype=np.int64))
    return words.astype("<u8", copy=False).view(np.uint8)[:num_bytes]


class SyntheticRecords:
    """Raw pictures of noise, all `width` × `height` px, in `num_classes` classes. See `records.Records`."""

    is_in_memory = True  # made when asked for: nothing is read

    def __init__(self, num_samples: int, num_classes: int, width: int, height: int) -> None:
        if min(num_samples, num_classes, width, height) < 1:
            raise FeedrateError(
                f"{num_samples} synthetic samples of {width}×{height} px in {num_classes} classes:"
                " each number must be 1 or more"
            )
        ids = np.arange(num_samples, dtype=np.int64)
        self.classes = tuple(f"class {label}" for label in range(num_classes))
        self.labels = (draw(stream_key(0, 0, "labels"), ids) % np.uint64(num_classes)).astype(np.int64)
        self.widths = np.full(num_samples, width, dtype=np.int32)
        self.heights = np.full(num_samples, height, dtype=np.int32)
        self.is_raw = np.ones(num_samples, dtype=np.bool_)
        self.channels: ChannelStatistics | None = None
        self._num_bytes = 3 * width * height

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> NDArray[np.uint8]:
        return hashed_pixels(index, self._num_bytes)

    def where(self, index: int) -> str:
        return f"synthetic picture {index}"

    def close(self) -> None:
        pass
