"""Parts of a batch into the memory where it lies: what each of the `turbo` loader's threads does."""

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import LoaderError
from .native.kernel import ROW, Kernel, address_of
from .pixels import Decoder, Pixels, Renderer, load_rgb
from .plan import PADDING_ID, PlanRows
from .records import Records
from .thread_team import Part

# how a sample that cannot be delivered is dealt with: `EpochLoader._or_substitute`
OrSubstitute = Callable[[PlanRows, int, Callable[[PlanRows], None]], None]


class Painter:
    """One thread's means of making pixels with simplejpeg, and OpenCV or Pillow.

    slabs  uint8 [rows of a batch, side, side, 3] each: job j lies in slab j modulo their number
    """

    def __init__(
        self,
        records: Records,
        decode: Decoder,
        render: Renderer,
        slabs: Sequence[Pixels],
        or_substitute: OrSubstitute,
    ) -> None:
        self._records = records
        self._decode = decode
        self._render = render
        self._slabs = slabs
        self._or_substitute = or_substitute

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        slab = self.slab(part.job)
        for row in range(part.start, part.stop):
            self.paint(rows, row, slab[row])

    def slab(self, job: int) -> Pixels:
        """Where the job's batch lies."""
        return self._slabs[job % len(self._slabs)]

    def paint(self, rows: PlanRows, row: int, out: Pixels) -> None:
        """One image, or the plan's substitute; raises LoaderError where there is to be none."""
        if rows.ids[row] == PADDING_ID:
            out[:] = 0
            return

        def deliver(one: PlanRows) -> None:
            pixels = load_rgb(self._records, int(one.ids[0]), self._decode)
            self._render(pixels, one.rects[0].tolist(), bool(one.flips[0]), out)

        self._or_substitute(rows, row, deliver)


class NativePainter:
    """The same bits by the native kernel; what it leaves alone, `painter` does, with its errors and its substitutes."""

    def __init__(self, records: Records, like: PlanRows, library: ctypes.CDLL, exact: bool, painter: Painter) -> None:
        self._records = records
        self._kernel = Kernel(library, like.size_px, like.fill, exact)
        self._painter = painter

    def __call__(self, rows: PlanRows, part: Part) -> None:
        """Fill rows [part.start, part.stop) of the job's slab; padding becomes black."""
        slab = self._painter.slab(part.job)
        table, held = self._table(rows, part)
        is_done = self._kernel(table, slab[part.start : part.stop])
        del held  # the kernel has read them
        for offset in np.flatnonzero(~is_done).tolist():
            row = part.start + offset
            self._painter.paint(rows, row, slab[row])

    def _table(self, rows: PlanRows, part: Part) -> tuple[NDArray[np.void], list[Pixels]]:
        """The kernel's table, and what keeps the bytes in it alive. Rows of no bytes are left alone by the kernel."""
        ids = rows.ids[part.start : part.stop]
        widths, heights = self._records.widths[ids], self._records.heights[ids]
        is_raw = self._records.is_raw[ids]
        table = np.zeros(len(ids), dtype=ROW)
        table["width"], table["height"], table["is_raw"] = widths, heights, is_raw
        table["rect"], table["flip"] = rows.rects[part.start : part.stop], rows.flips[part.start : part.stop]
        wanted = ids != PADDING_ID
        if Image.MAX_IMAGE_PIXELS:  # Pillow is to say what is too large
            wanted &= is_raw | (widths.astype(np.int64) * heights <= Image.MAX_IMAGE_PIXELS)
        held, addresses, sizes = [], [0] * len(ids), [0] * len(ids)
        for offset in np.flatnonzero(wanted).tolist():
            try:
                # the kernel reads one byte after the other; people's own records may hand out anything
                data = np.ascontiguousarray(self._records.read(int(ids[offset])))
            except LoaderError:
                continue  # reading it again says so, in its turn
            held.append(data)
            addresses[offset], sizes[offset] = address_of(data), data.size
        table["address"], table["num_bytes"] = addresses, sizes
        return table, held
