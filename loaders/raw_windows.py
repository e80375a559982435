"""Rectangles of raw samples, only copied by the CPU and resized where the batch is used: the least a core can do."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from .api import Batch, LoaderOptions
from .device_resize import Cuts, cut_and_resize
from .errors import FeedrateError, LoaderError
from .native.kernel import Kernel
from .native.library import load
from .painters import NativePainter, OrSubstitute, Painter
from .pixels import Decoder, Pixels, cut
from .plan import PlanRows
from .records import Records
from .slabs import allocate
from .stage_writer import StageWriter
from .stored_rows import StoredRows
from .stream_spans import spanning
from .thread_team import Part, ThreadTeam, Worker
from .transfer import to_device

_ROOM_TO_GROW = 1.25  # rectangles differ from batch to batch, and page-locking memory takes long


@dataclass(frozen=True, kw_only=True)
class WindowBatch(Batch):
    """A batch on its way: `images` are the pixels of its rectangles one after the other, uint8 [P, 3].

    cuts  where each lies in them, and what is to become of it; on the host
    """

    cuts: Cuts


@dataclass(frozen=True)
class Jobs:
    """The batches to make: what an `EpochLoader` knows of them.

    rows_of        the plan's rows of batch 0 … count - 1
    batch_of       `EpochLoader._batch`
    chunk_of       how many rows a thread takes at once of batches like this
    or_substitute  `EpochLoader._or_substitute`
    writer_of      `EpochLoader._writer`
    counting       `EpochLoader._counting`
    """

    rows_of: Callable[[int], PlanRows]
    count: int
    num_threads: int
    chunk_of: Callable[[PlanRows], int]
    batch_of: Callable[[torch.Tensor, PlanRows], Batch]
    or_substitute: OrSubstitute
    writer_of: Callable[[int], StageWriter]
    counting: Callable[[Callable[[], int]], AbstractContextManager[None]]


class RawWindows:
    """Makes batches of raw samples by copying, and has them resized on the device.

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
        self._records = records
        self._device = options.device
        areas = records.widths.astype(np.int64) * records.heights
        self._least_room = int(areas.max(initial=0)) if options.on_bad == "substitute" else 0
        self._slabs = [_Slab(options.device.type == "cuda") for _ in range(options.num_ahead + 1)]

    def batches(self, jobs: Jobs) -> Generator[Batch]:
        """The batches on the device, each valid until the next is asked for."""
        caller = jobs.writer_of(0)
        resizing = spanning(caller, "augment", self._device)
        copied = to_device(self.host_batches(jobs), self._device, caller)
        try:
            for batch in copied:
                # the images have been counted when they were cut
                with resizing(0):
                    images = cut_and_resize(batch.images, batch.cuts).permute(0, 3, 1, 2)
                yield Batch(images, batch.labels, batch.ids, batch.num_valid, batch.substitutions)
        finally:
            copied.close()

    def host_batches(self, jobs: Jobs) -> Generator[WindowBatch]:
        """Batch j lies in slab j modulo their number; the team reuses a slab once its batch has been given back."""
        if not jobs.count:
            return
        first = jobs.rows_of(0)  # also makes the epoch's order, before any thread could wait for it

        def begin(job: int) -> PlanRows:
            rows = jobs.rows_of(job)
            self._slab(job).make_room(rows, self._least_room)
            return rows

        def worker(number: int) -> Worker:
            return self._painter(first.fill, jobs.or_substitute, jobs.writer_of(number))

        caller = jobs.writer_of(0)
        with (
            ThreadTeam(begin, worker, jobs.count, len(self._slabs), jobs.chunk_of(first), jobs.num_threads) as team,
            jobs.counting(team.num_ready),
        ):
            for job in range(jobs.count):
                rows = team.finished(job, caller)
                slab = self._slab(job)
                batch = jobs.batch_of(slab.pixels[None, None], rows)
                yield WindowBatch(
                    slab.pixels, batch.labels, batch.ids, batch.num_valid, batch.substitutions, cuts=slab.cuts(rows)
                )
                team.give_back(job)

    def _slab(self, job: int) -> "_Slab":
        return self._slabs[job % len(self._slabs)]

    def _painter(self, fill: tuple[int, int, int], or_substitute: OrSubstitute, times: StageWriter) -> Worker:
        """One thread's means of copying rectangles."""

        def copy(pixels: Pixels, rect: Sequence[int], flip: bool, out: Pixels) -> None:
            _copy(cut(pixels, rect, fill), out)

        painter = Painter(self._records, Decoder(), copy, self._slabs, or_substitute, times)
        library = load()
        if library is None:
            return painter
        kernel = Kernel(library, 1, fill, times=times)

        def copy_all(table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
            return self._slab(part.job).copy(kernel, table, part)

        return NativePainter(StoredRows(self._records, times), copy_all, painter)


def _copy(rectangle: Pixels, out: Pixels) -> None:
    """To the start of `out`, uint8 [room, 3]; it is mirrored where it is resized."""
    height, width = rectangle.shape[:2]
    if height * width > len(out):  # of a substitute, in whose place the plan then names another: nobody hears of it
        raise LoaderError(f"a rectangle of {width}×{height} px is larger than there is room for")
    out[: height * width].reshape(height, width, 3)[:] = rectangle


class _Slab:
    """Memory for the rectangles of one batch, each behind the one before."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._memory = torch.empty((0, 3), dtype=torch.uint8)
        self._starts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self.pixels = self._memory
        self._array: Pixels = self.pixels.numpy()

    def make_room(self, rows: PlanRows, least: int) -> None:
        """For the rectangles of `rows`, at least `least` pixels for each."""
        rooms = np.maximum(rows.rects[:, 2].astype(np.int64) * rows.rects[:, 3], least)
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

    def copy(self, kernel: Kernel, table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
        """The rectangles of a part's rows to their rooms. Returns what `Kernel.copy` does."""
        return kernel.copy(table, self._array, self._starts[part.start : part.stop + 1])

    def cuts(self, rows: PlanRows) -> Cuts:
        """All of each rectangle, as it lies here."""
        whole = rows.rects.copy()
        whole[:, :2] = 0
        sides = rows.rects.astype(np.int64)
        return Cuts.of(replace(rows, rects=whole), self._starts[:-1], sides[:, 2], sides[:, 3])
