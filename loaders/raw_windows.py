"""Rectangles of raw samples, only copied by the CPU and resized where the batch is used: the least a core can do."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from .api import Batch, LoaderOptions
from .device_resize import Cuts, cut_and_resize
from .errors import FeedrateError, LoaderError
from .native.kernel import Kernel
from .painters import Render
from .pixels import Pixels, cut
from .plan import PlanRows
from .records import Records
from .slabs import allocate
from .stage_writer import StageWriter
from .stream_spans import spanning
from .thread_team import Part
from .transfer import to_device

_ROOM_TO_GROW = 1.25  # rectangles differ from batch to batch, and page-locking memory takes long


@dataclass(frozen=True, kw_only=True)
class WindowBatch(Batch):
    """A batch on its way: `images` are the pixels of its rectangles one after the other, uint8 [P, 3].

    cuts  where each lies in them, and what is to become of it; on the host
    """

    cuts: Cuts


class RawWindows:
    """What mode `device` of `turbo` makes: rectangles of raw samples by copying, to be resized on the device.

    Memory: `num_ahead` + 1 times the rectangles of the largest batch so far, page-locked where the device is CUDA;
    where samples may be substituted, as if every rectangle were as large as the largest sample.

    Raises FeedrateError where samples are encoded.
    """

    def __init__(self, records: Records, options: LoaderOptions) -> None:
        if not records.is_raw.all():
            num_encoded = len(records) - int(records.is_raw.sum())
            raise FeedrateError(
                f"resizing on the device needs raw samples, and {num_encoded:,} of {len(records):,} are encoded: pack"
                " the set anew with --to raw, or with --write-mode raw, or use another --data.resize"
            )
        areas = records.widths.astype(np.int64) * records.heights
        least = int(areas.max(initial=0)) if options.on_bad == "substitute" else 0
        self._slabs = [_Slab(least, options.device.type == "cuda") for _ in range(options.num_ahead + 1)]

    def slabs(self, like: PlanRows) -> list["_Slab"]:
        """One for each batch under way at a time; they grow with the batches."""
        return self._slabs

    def renderer(self, like: PlanRows) -> Render:
        """One thread's means of copying rectangles without the kernel."""

        def copy(pixels: Pixels, rect: Sequence[int], flip: bool, out: Pixels) -> None:
            _copy(cut(pixels, rect, like.fill), out)

        return copy

    def delivered(self, batches: Generator[Batch], device: torch.device, times: StageWriter) -> Generator[Batch]:
        """The batches on the device, each valid until the next is asked for."""
        resizing = spanning(times, "augment", device)
        copied = to_device(batches, device, times)
        try:
            for batch in copied:
                assert isinstance(batch, WindowBatch)
                # the images have been counted when they were cut
                with resizing(0):
                    images = cut_and_resize(batch.images, batch.cuts).permute(0, 3, 1, 2)
                yield Batch(images, batch.labels, batch.ids, batch.num_valid, batch.substitutions)
        finally:
            copied.close()

    def clear(self) -> None:
        """Give the memory up."""
        self._slabs = []


def _copy(rectangle: Pixels, out: Pixels) -> None:
    """To the start of `out`, uint8 [room, 3]; it is mirrored where it is resized."""
    height, width = rectangle.shape[:2]
    if height * width > len(out):  # of a substitute, in whose place the plan then names another: nobody hears of it
        raise LoaderError(f"a rectangle of {width}×{height} px is larger than there is room for")
    out[: height * width].reshape(height, width, 3)[:] = rectangle


class _Slab:
    """Memory for the rectangles of one batch, each behind the one before, with at least `least` pixels for each."""

    def __init__(self, least: int, pinned: bool) -> None:
        self._least = least
        self._pinned = pinned
        self._memory = torch.empty((0, 3), dtype=torch.uint8)
        self._starts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self.pixels = self._memory
        self._array: Pixels = self.pixels.numpy()

    def make_room(self, rows: PlanRows) -> None:
        """For the rectangles of `rows`."""
        rooms = np.maximum(rows.rects[:, 2].astype(np.int64) * rows.rects[:, 3], self._least)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(rooms)])
        needed = int(self._starts[-1])
        if needed > len(self._memory):
            self._memory = self.pixels = torch.empty((0, 3), dtype=torch.uint8)  # gone before the new comes
            self._array = self.pixels.numpy()
            shape = (int(needed * _ROOM_TO_GROW), 3)
            self._memory = allocate(shape, "use a smaller batch, or fewer --data.batches-ahead", pinned=self._pinned)
        self.pixels = self._memory[:needed]
        self._array = self.pixels.numpy()

    def __getitem__(self, row: int) -> Pixels:
        """The row's room, uint8 [pixels, 3]."""
        return self._array[self._starts[row] : self._starts[row + 1]]

    def paint(self, kernel: Kernel, table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
        """The rectangles of a part's rows to their rooms. Returns what `Kernel.copy` does."""
        return kernel.copy(table, self._array, self._starts[part.start : part.stop + 1])

    def batch(self, rows: PlanRows, batch_of: Callable[[torch.Tensor, PlanRows], Batch]) -> Batch:
        """With all of each rectangle, as it lies here."""
        whole = rows.rects.copy()
        whole[:, :2] = 0
        sides = rows.rects.astype(np.int64)
        cuts = Cuts.of(replace(rows, rects=whole), self._starts[:-1], sides[:, 2], sides[:, 3])
        batch = batch_of(self.pixels[None, None], rows)
        return WindowBatch(self.pixels, batch.labels, batch.ids, batch.num_valid, batch.substitutions, cuts=cuts)
