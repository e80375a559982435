"""Parts of a batch into the memory where it lies: what each of the `turbo` loader's threads does."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .pixels import Decoder, Pixels, load_rgb
from .plan import PADDING_ID, PlanRows
from .records import Records
from .stage_writer import StageWriter
from .stored_rows import StoredRows
from .thread_team import Part

# how a sample that cannot be delivered is dealt with: `EpochLoader._or_substitute`
OrSubstitute = Callable[[PlanRows, int, Callable[[PlanRows], None]], None]
# what becomes of a sample's pixels: a rectangle (left, top, width, height) of them, mirrored or not, into given memory
Render = Callable[[Pixels, Sequence[int], bool, Pixels], None]
# the same of all rows of a table, ROW [n], for the rows of a part; False, of bool [n], where it was left alone
NativeRender = Callable[[NDArray[np.void], Part], NDArray[np.bool_]]


class Places(Protocol):
    """A batch's memory."""

    def __getitem__(self, row: int, /) -> Pixels:
        """What is the row's."""
        ...


class Painter:
    """One thread's means of making pixels with simplejpeg, and OpenCV or Pillow.

    slabs  job j lies in slab j modulo their number
    """

    def __init__(
        self,
        records: Records,
        decode: Decoder,
        render: Render,
        slabs: Sequence[Places],
        or_substitute: OrSubstitute,
        times: StageWriter,
    ) -> None:
        self._records = records
        self._decode = decode
        self._render = render
        self._slabs = slabs
        self._or_substitute = or_substitute
        self._times = times

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        for row in range(part.start, part.stop):
            self.paint(rows, row, self.place(part.job, row))

    def place(self, job: int, row: int) -> Pixels:
        """Where a job's row belongs."""
        return self._slabs[job % len(self._slabs)][row]

    def paint(self, rows: PlanRows, row: int, out: Pixels, was_read: bool = False) -> None:
        """One image, or the plan's substitute; raises LoaderError where there is to be none.

        was_read  the sample's reading has been counted already
        """
        if rows.ids[row] == PADDING_ID:
            out[:] = 0
            return

        counted = int(rows.ids[row]) if was_read else PADDING_ID

        def deliver(one: PlanRows) -> None:
            index, rect = int(one.ids[0]), one.rects[0].tolist()
            pixels = load_rgb(self._records, index, self._decode, self._times, rect, int(index != counted))
            with self._times.stage("augment"):
                self._render(pixels, rect, bool(one.flips[0]), out)

        self._or_substitute(rows, row, deliver)


class NativePainter:
    """The same bits by the native kernel; what it leaves alone, `painter` does, with its errors and its substitutes."""

    def __init__(self, stored: StoredRows, render: NativeRender, painter: Painter) -> None:
        self._stored = stored
        self._render = render
        self._painter = painter

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        table, held = self._stored.table(rows, part)
        is_done = self._render(table, part)
        del held  # the kernel has read them
        for offset in np.flatnonzero(~is_done).tolist():
            row = part.start + offset
            self._painter.paint(rows, row, self._painter.place(part.job, row), bool(table["address"][offset]))
