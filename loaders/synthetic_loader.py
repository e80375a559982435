"""One batch of pixels again and again: the ceiling that a loader can at best reach."""

from collections.abc import Generator
from dataclasses import replace
from typing import ClassVar

import torch

from .api import Batch, LoaderOptions, ResizeMode
from .epochs import EpochLoader
from .plan import Plan
from .records import Records
from .synthetic_records import hashed_pixels
from .transfer import send

_SEED = 0


class SyntheticLoader(EpochLoader):
    """The plan's ids and labels with pixels that are no sample's. They lie on the device from the first batch on."""

    name = "synthetic"
    reads_records: ClassVar[bool] = False
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("area", "exact", "bicubic", "device")  # and resizes nothing

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        super().__init__(records, plan, options)
        self._images: torch.Tensor | None = None

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        for index in range(start, len(self)):
            rows = self._rows(epoch, index)
            batch = self._batch(self._pixels(len(rows), rows.size_px), rows)
            yield replace(batch, labels=send(batch.labels, self._options.device))

    def _pixels(self, num_rows: int, size_px: int) -> torch.Tensor:
        """uint8 [num_rows, size_px, size_px, 3], made once for a size."""
        shape = (num_rows, size_px, size_px, 3)
        if self._images is None or self._images.shape != shape:
            pixels = torch.from_numpy(hashed_pixels(_SEED, num_rows * size_px * size_px * 3).reshape(shape))
            self._images = pixels.to(self._options.device)
        return self._images

    def close(self) -> None:
        super().close()
        self._images = None
