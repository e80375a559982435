"""Threads, libjpeg-turbo and resizing into memory that is allocated once: the fastest loader on a CPU.

Pixels come from simplejpeg and OpenCV or Pillow, all from pip alone, or with the same bits, sooner, from the native
kernel where it could be compiled; `loaders.native.library.why_not` says why it could not.
"""

from collections.abc import Callable, Generator, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from .api import Batch, LoaderOptions, ResizeMode
from .epochs import EpochLoader
from .native.kernel import Kernel
from .native.library import load
from .painters import NativePainter, Painter, Render, Slab
from .pixels import Decoder, Pixels, Renderer
from .plan import Plan, PlanRows
from .raw_windows import RawWindows
from .records import Records
from .resampling import Resampling
from .slabs import Slabs
from .stage_writer import StageWriter
from .stored_rows import StoredRows
from .thread_team import Part, ThreadTeam, Worker
from .transfer import to_device

# what a thread takes at once: enough that handing out work costs nothing beside doing it, of small images more
_MIN_CHUNK = 16  # samples
_CHUNK_PIXELS = _MIN_CHUNK * 224**2


class TurboLoader(EpochLoader):
    """Pixels are made by threads; what takes long (decoding, resizing, copying) runs without the interpreter's lock.

    Memory: `num_ahead` + 1 batches, page-locked where the device is CUDA, and for each thread the largest sample seen
    and, where samples are files, the bytes of those it makes at once.
    """

    name = "turbo"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("area", "exact", "bicubic", "device")
    counts_ready: ClassVar[bool] = True

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        super().__init__(records, plan, options)
        self._kernel_mode: Resampling = "area" if self._resize == "device" else self._resize
        # compiled, if it is for the first time on this machine, before any thread waits for it
        library = load(self._kernel_mode)
        points = getattr(records, "seek_points", None)
        if library is not None and points is not None:
            points.will_be_read()
        self._product = RawWindows(records, options) if self._resize == "device" else _Images(options, self._resize)

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        return self._product.delivered(self._host_batches(epoch, start), self._options.device, self._caller)

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Batch j lies in slab j modulo their number; the team reuses a slab once its batch has been given back."""
        if start == len(self):
            return
        first = self._rows(epoch, start)  # also makes the epoch's order, before any thread could wait for it
        slabs = self._product.slabs(first)

        def rows_of(job: int) -> PlanRows:
            rows = self._rows(epoch, start + job)
            slabs[job % len(slabs)].make_room(rows)
            return rows

        def painter(number: int) -> Worker:
            return self._painter(first, slabs, self._writer(number))

        with (
            ThreadTeam(rows_of, painter, len(self) - start, len(slabs), self._chunk(first), self._num_workers) as team,
            self._counting(team.num_ready),
        ):
            for job in range(len(self) - start):
                rows = team.finished(job, self._caller)
                yield slabs[job % len(slabs)].batch(rows, self._batch)
                team.give_back(job)

    def _chunk(self, like: PlanRows) -> int:
        """Rows a thread takes at once: more than the least of those that are small as stored and as delivered."""
        stored = self._records.widths[like.ids].astype(np.int64) * self._records.heights[like.ids]
        most = max(_MIN_CHUNK, _CHUNK_PIXELS // max(int(stored.mean()), like.size_px**2))
        return max(1, min(most, len(like) // (4 * self._num_workers)))

    def _painter(self, like: PlanRows, slabs: Sequence[Slab], times: StageWriter) -> Worker:
        """One thread's means of making pixels: here, and only here, it is chosen."""
        render = self._product.renderer(like)
        painter = Painter(self._records, Decoder(), render, slabs, self._or_substitute, times)
        library = load(self._kernel_mode)
        if library is None:
            return painter
        kernel = Kernel(library, like.size_px, like.fill, self._kernel_mode, times=times)
        return NativePainter(StoredRows(self._records, times), kernel, painter)

    def close(self) -> None:
        super().close()
        self._product.clear()


class _Images:
    """Finished images, made by the threads: what `RawWindows` is to rectangles."""

    def __init__(self, options: LoaderOptions, resize: Resampling) -> None:
        self._resize: Resampling = resize
        self._slabs = Slabs(options.num_ahead + 1, options.device.type == "cuda")

    def slabs(self, like: PlanRows) -> list["_ImageSlab"]:
        return [_ImageSlab(images) for images in self._slabs.of(len(like), like.size_px)]

    def renderer(self, like: PlanRows) -> Render:
        return Renderer(like.size_px, like.fill, self._resize)

    def delivered(self, batches: Generator[Batch], device: torch.device, times: StageWriter) -> Generator[Batch]:
        return to_device(batches, device, times)

    def clear(self) -> None:
        self._slabs.clear()


class _ImageSlab:
    """One batch of them."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images
        self._array: Pixels = images.numpy()

    def make_room(self, rows: PlanRows) -> None:
        """There is: all batches of an epoch are of one size."""

    def __getitem__(self, row: int) -> Pixels:
        image: Pixels = self._array[row]
        return image

    def paint(self, kernel: Kernel, table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
        return kernel(table, self._array[part.start : part.stop])

    def batch(self, rows: PlanRows, batch_of: Callable[[torch.Tensor, PlanRows], Batch]) -> Batch:
        return batch_of(self._images, rows)
