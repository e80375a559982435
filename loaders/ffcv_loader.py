"""FFCV itself, over its own container, executing the plan: see `ffcv_pipeline` for which parts of it run."""

from collections.abc import Generator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from . import ffcv_compiled as columns
from .api import Batch, LoaderOptions, ResizeMode
from .beton_records import BetonRecords
from .epochs import EpochLoader
from .errors import FeedrateError
from .ffcv_batch import PlannedBatch
from .ffcv_pipeline import PlannedDecoder, PlannedEpoch, PlannedLoader
from .painters import Painter
from .pixels import Decoder, Renderer, most_pixels
from .plan import Plan, PlanRows
from .records import Records
from .slabs import Slabs
from .stage_writer import StageWriter
from .transfer import to_device


class FfcvLoader(EpochLoader):
    """Samples are decoded, cut, resized and flipped by compiled code in threads, without the interpreter's lock.

    Memory: `num_ahead` + 1 batches (at least 3), page-locked where the device is CUDA, and for each thread 16 MB or
    less of scratch; an image larger than that is given memory while it is being made.
    """

    name = "ffcv"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("area",)
    counts_ready: ClassVar[bool] = True
    _records: BetonRecords

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        if not isinstance(records, BetonRecords):
            raise FeedrateError(
                "loader 'ffcv' reads FFCV's .beton only: pack with python tools/convert.py … --to beton,"
                " or use --loader turbo"
            )
        super().__init__(records, plan, options)
        num_slabs = max(3, options.num_ahead + 1)  # FFCV's queue holds one batch or more
        self._slabs = Slabs(num_slabs, options.device.type == "cuda")

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        return to_device(self._host_batches(epoch, start), self._options.device, self._caller)

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        if start == len(self):
            return
        first = self._rows(epoch, start)  # also makes the epoch's order, before any thread could wait for it
        slabs = self._slabs.of(len(first), first.size_px)
        stored = self._records.file_bytes()
        largest = int((self._records.widths.astype(np.int64) * self._records.heights).max())

        def planned(batch: int) -> PlannedBatch:
            rows = self._rows(epoch, start + batch)
            return PlannedBatch(rows, _table(self._records, rows))

        decoder = PlannedDecoder(first, largest, self._num_workers, self._mend, self._writer)
        loader = PlannedLoader(decoder, stored, slabs, len(first))
        running = PlannedEpoch(loader, planned, len(self) - start, self._caller)
        try:
            with self._counting(running.num_ready):
                for slot, rows in running:
                    yield self._batch(slabs[slot], rows)
        finally:
            running.close()

    def _mend(self, rows: PlanRows, row: int, out: NDArray[np.uint8], times: StageWriter, was_read: bool) -> None:
        """A row that the compiled code does not make, by the means of loader `turbo`: they decide what is bad."""
        render = Renderer(rows.size_px, rows.fill, "area")
        Painter(self._records, Decoder(), render, [], self._or_substitute, times).paint(rows, row, out, was_read)

    def close(self) -> None:
        super().close()
        self._slabs.clear()


def _table(records: BetonRecords, rows: PlanRows) -> NDArray[np.int64]:
    """int64 [n, NUM_COLUMNS]: the rows as the compiled code wants them."""
    valid = rows.ids >= 0
    ids = rows.ids[valid]
    table = np.zeros((len(rows), columns.NUM_COLUMNS), np.int64)
    table[:, columns.LEFT : columns.CROP_HEIGHT + 1] = rows.rects
    table[:, columns.FLIP] = rows.flips
    widths, heights = records.widths[ids].astype(np.int64), records.heights[ids].astype(np.int64)
    is_raw = records.is_raw[ids]
    too_large = ~is_raw & (widths * heights > most_pixels())
    stored = {
        columns.POSITION: records.positions[ids],
        columns.SIZE: records.sizes[ids],
        columns.IS_RAW: is_raw,
        columns.WIDTH: widths,
        columns.HEIGHT: heights,
        columns.STATUS: np.where(too_large, columns.ODD, 0),
    }
    for column, values in stored.items():
        table[valid, column] = values
    return table
