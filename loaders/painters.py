"""Parts of a batch into the memory where it lies: what each of the `turbo` loader's threads does."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .native.kernel import Kernel
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


class Slab(Protocol):
    """A batch's memory."""

    def __getitem__(self, row: int, /) -> Pixels:
        """What is the row's."""
        ...

    def paint(self, kernel: Kernel, table: NDArray[np.void], part: Part) -> NDArray[np.bool_]:
        """Have the kernel make a part's rows, ROW [n]; False, of bool [n], where it left one alone."""
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
        slabs: Sequence[Slab],
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
            self.paint(rows, row, self.slab(part.job)[row])

    def slab(self, job: int) -> Slab:
        """Where a job's rows belong."""
        return self._slabs[job % len(self._slabs)]

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

    def __init__(self, stored: StoredRows, kernel: Kernel, painter: Painter) -> None:
        self._stored = stored
        self._kernel = kernel
        self._painter = painter

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        table, held = self._stored.table(rows, part)
        slab = self._painter.slab(part.job)
        is_done = slab.paint(self._kernel, table, part)
        del held  # the kernel has read them
        for offset in np.flatnonzero(~is_done).tolist():
            row = part.start + offset
            self._painter.paint(rows, row, slab[row], bool(table["address"][offset]))
