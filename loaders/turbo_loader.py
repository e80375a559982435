"""Threads, libjpeg-turbo and OpenCV into memory that is allocated once: the fastest loader from pip alone."""

from collections.abc import Generator
from typing import ClassVar

import cv2
import torch

from .api import Batch, LoaderOptions, ResizeMode
from .epochs import EpochLoader
from .pixels import Decoder, Renderer, load_rgb
from .plan import Plan, PlanRows
from .records import Records
from .thread_team import Part, ThreadTeam
from .transfer import to_device

_MAX_CHUNK = 16  # samples a thread takes at once: enough that handing out work costs nothing beside doing it


class TurboLoader(EpochLoader):
    """Pixels are made by threads; what takes long (decoding, resizing, copying) runs without the interpreter's lock.

    Memory: `num_ahead` + 1 batches, page-locked where the device is CUDA, and for each thread the largest sample seen.
    """

    name = "turbo"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("area", "exact")

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        super().__init__(records, plan, options)
        # OpenCV would split every single resize over threads of its own, which then fight with ours over the same
        # processors. Its setting is the whole process's; nothing else here uses OpenCV.
        cv2.setNumThreads(1)
        self._slabs: list[torch.Tensor] = []

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        return to_device(self._host_batches(epoch, start), self._options.device)

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Batch j lies in slab j modulo their number; the team reuses a slab once its batch has been given back."""
        if start == len(self):
            return
        first = self._rows(epoch, start)  # also makes the epoch's order, before any thread could wait for it
        slabs = self._slabs_for(len(first), first.size_px)
        chunk = max(1, min(_MAX_CHUNK, len(first) // (4 * self._num_workers)))

        def painter() -> _Painter:
            return _Painter(self._records, first, self._resize == "exact", slabs)

        def rows_of(job: int) -> PlanRows:
            return self._rows(epoch, start + job)

        with ThreadTeam(rows_of, painter, len(self) - start, len(slabs), chunk, self._num_workers) as team:
            for job in range(len(self) - start):
                rows = team.finished(job)
                yield self._batch(slabs[job % len(slabs)], rows)
                team.give_back(job)

    def _slabs_for(self, num_rows: int, size_px: int) -> list[torch.Tensor]:
        """uint8 [num_rows, size_px, size_px, 3] each, kept from epoch to epoch while the size stays."""
        shape = (num_rows, size_px, size_px, 3)
        if not self._slabs or self._slabs[0].shape != shape:
            self._slabs.clear()  # gone before the new ones come, not after
            pinned = self._options.device.type == "cuda"
            for _ in range(self._options.num_ahead + 1):
                self._slabs.append(torch.empty(shape, dtype=torch.uint8, pin_memory=pinned))
        return self._slabs

    def close(self) -> None:
        super().close()
        self._slabs = []


class _Painter:
    """One thread's means of making pixels."""

    def __init__(self, records: Records, like: PlanRows, exact: bool, slabs: list[torch.Tensor]) -> None:
        self._records = records
        self._decode = Decoder()
        self._render = Renderer(like.size_px, like.fill, exact)
        self._slabs = [slab.numpy() for slab in slabs]

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        slab = self._slabs[part.job % len(self._slabs)][part.start : part.stop]
        rects = rows.rects[part.start : part.stop].tolist()
        flips = rows.flips[part.start : part.stop].tolist()
        for offset, index in enumerate(rows.ids[part.start : part.stop].tolist()):
            if index < 0:
                slab[offset] = 0
            else:
                pixels = load_rgb(self._records, index, self._decode)
                self._render(pixels, rects[offset], flips[offset], slab[offset])
