"""Threads, libjpeg-turbo and resizing into memory that is allocated once: the fastest loader on a CPU.

Pixels come from simplejpeg and OpenCV or Pillow, all from pip alone, or with the same bits, sooner, from the native
kernel where it could be compiled; `loaders.native.library.why_not` says why it could not.
"""

from collections.abc import Generator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .api import Batch, LoaderOptions, ResizeMode
from .epochs import EpochLoader
from .native.kernel import Kernel
from .native.library import load
from .painters import NativePainter, Painter
from .pixels import Decoder, Pixels, Renderer
from .plan import Plan, PlanRows
from .raw_windows import Jobs, RawWindows
from .records import Records
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
        # compiled, if it is for the first time on this machine, before any thread waits for it
        library = load("area" if self._resize == "device" else self._resize)
        points = getattr(records, "seek_points", None)
        if library is not None and points is not None:
            points.will_be_read()
        self._slabs = Slabs(options.num_ahead + 1, options.device.type == "cuda")
        self._windows = RawWindows(records, options) if self._resize == "device" else None

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        if self._windows is not None:
            return self._windows.batches(self._jobs(epoch, start))
        return to_device(self._host_batches(epoch, start), self._options.device, self._caller)

    def _jobs(self, epoch: int, start: int) -> Jobs:
        return Jobs(
            lambda job: self._rows(epoch, start + job),
            len(self) - start,
            self._num_workers,
            self._chunk,
            self._batch,
            self._or_substitute,
            self._writer,
            self._counting,
        )

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Batch j lies in slab j modulo their number; the team reuses a slab once its batch has been given back."""
        if start == len(self):
            return
        first = self._rows(epoch, start)  # also makes the epoch's order, before any thread could wait for it
        slabs = self._slabs.of(len(first), first.size_px)

        def painter(number: int) -> Worker:
            return self._painter(first, [slab.numpy() for slab in slabs], self._writer(number))

        def rows_of(job: int) -> PlanRows:
            return self._rows(epoch, start + job)

        with (
            ThreadTeam(rows_of, painter, len(self) - start, len(slabs), self._chunk(first), self._num_workers) as team,
            self._counting(team.num_ready),
        ):
            for job in range(len(self) - start):
                rows = team.finished(job, self._caller)
                yield self._batch(slabs[job % len(slabs)], rows)
                team.give_back(job)

    def _chunk(self, like: PlanRows) -> int:
        """Rows a thread takes at once: more than the least of those that are small as stored and as delivered."""
        stored = self._records.widths[like.ids].astype(np.int64) * self._records.heights[like.ids]
        most = max(_MIN_CHUNK, _CHUNK_PIXELS // max(int(stored.mean()), like.size_px**2))
        return max(1, min(most, len(like) // (4 * self._num_workers)))

    def _painter(self, like: PlanRows, slabs: list[Pixels], times: StageWriter) -> Worker:
        """One thread's means of making pixels: here, and only here, it is chosen."""
        assert self._resize != "device"
        render = Renderer(like.size_px, like.fill, self._resize)
        painter = Painter(self._records, Decoder(), render, slabs, self._or_substitute, times)
        library = load(self._resize)
        if library is None:
            return painter
        kernel = Kernel(library, like.size_px, like.fill, self._resize, times=times)

        def paint(table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
            return kernel(table, slabs[part.job % len(slabs)][part.start : part.stop])

        return NativePainter(StoredRows(self._records, times), paint, painter)

    def close(self) -> None:
        super().close()
        self._slabs.clear()
        self._windows = None
