"""Batches on their way through DALI: what each is made from, in order, and on after a sample that DALI cannot read."""

from collections import deque
from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .dali_graph import Feed, Graph, RunningGraph
from .errors import LoaderError
from .pixels import Pixels
from .plan import PlanRows
from .records import Records

Row = int
Repair = Callable[["Ingredients", Row], None]  # paints a row that DALI cannot read, or raises LoaderError

_EMPTY = np.zeros(0, dtype=np.uint8)


class Ingredients:
    """What one batch is made from: stored samples for DALI, and pixels made elsewhere.

    samples  stored bytes by row, for DALI to decode (or pixels, in a raw graph)
    painted  finished pixels by row, uint8 [size_px, size_px, 3]
    Rows in neither are padding and become black. Different threads may fill different rows.
    """

    def __init__(self, rows: PlanRows) -> None:
        self.rows = rows
        self.samples: dict[Row, NDArray[np.uint8]] = {}
        self.painted: dict[Row, Pixels] = {}

    def feed(self, records: Records, raw: bool, only: range | None = None) -> Feed:
        """For DALI; rows that it shall not make (all outside `only`, if given) become one black pixel."""
        count = len(self.rows)
        wanted = [row for row in self.samples if only is None or row in only]
        samples = [_BLACK_PIXEL if raw else _BLACK_IMAGE] * count
        for row in wanted:
            samples[row] = self.samples[row]
        window_start, rect_start, flips = (np.zeros((count, 2), dtype=np.int32) for _ in range(3))
        window_shape, rect_shape = (np.ones((count, 2), dtype=np.int32) for _ in range(2))
        ids, rects = self.rows.ids[wanted], self.rows.rects[wanted]
        sides = np.stack([records.heights[ids], records.widths[ids]], axis=1)
        start = rects[:, 1::-1]  # top, left
        end = start + rects[:, 3:1:-1]
        # a rectangle beside the sample keeps one pixel of it as its window, which then lies outside the rectangle
        window_start[wanted] = np.clip(start, 0, sides - 1)
        window_shape[wanted] = np.clip(end, window_start[wanted] + 1, sides) - window_start[wanted]
        rect_start[wanted] = start if raw else start - window_start[wanted]
        rect_shape[wanted] = rects[:, 3:1:-1]
        flips[wanted, 0] = self.rows.flips[wanted]
        return Feed(samples, window_start, window_shape, rect_start, rect_shape, np.ascontiguousarray(flips[:, 0]))

    def finish(self, images: torch.Tensor) -> torch.Tensor:
        """Put the painted rows into what DALI made, uint8 [n, size_px, size_px, 3] on any device."""
        if self.painted:
            rows = sorted(self.painted)
            pixels = torch.from_numpy(np.stack([self.painted[row] for row in rows]))
            images[torch.tensor(rows, device=images.device)] = pixels.to(images.device)
        return images


class Stream:
    """Batches through one pipeline, in order.

    DALI gives up a whole batch, and says that its pipeline is broken, if it cannot decode one sample. Then this finds
    the rows at fault by trying parts of the batch, hands each to `repair`, and goes on with a new pipeline, fed again
    with all that was under way. A failure that no row explains is a LoaderError. Close it, or use it in a `with`.
    """

    def __init__(self, graph: Graph, records: Records, repair: Repair) -> None:
        self._graph = graph
        self._records = records
        self._repair = repair
        self._under_way: deque[tuple[Ingredients, Feed]] = deque()
        self._running: RunningGraph | None = None

    def __len__(self) -> int:
        """Batches under way."""
        return len(self._under_way)

    def push(self, batch: Ingredients) -> None:
        """Begin a batch; does not wait."""
        feed = batch.feed(self._records, self._graph.raw)
        self._under_way.append((batch, feed))
        if self._running is None:
            self._running = self._graph.build()
        self._running.feed(feed)

    def take(self) -> tuple[PlanRows, torch.Tensor]:
        """Wait for the oldest batch: its rows, and uint8 [n, size_px, size_px, 3] on the device."""
        assert self._running is not None
        try:
            images = self._running.take()
        except RuntimeError as error:
            images = self._mended(_reason(error))
        batch, _ = self._under_way.popleft()
        return batch.rows, batch.finish(images)

    def close(self) -> None:
        """Give up what is under way, as soon as DALI lets go of it. Idempotent."""
        if self._running is not None:
            self._running.close()
        self._running = None
        self._under_way.clear()  # last: until here DALI may read this memory

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mended(self, reason: str) -> torch.Tensor:
        """The oldest batch, once the rows that DALI cannot read are out of it."""
        assert self._running is not None
        self._running.close()
        batch, _ = self._under_way[0]
        at_fault = self._rows_at_fault(batch, range(len(batch.rows))) if self._can_make(batch, range(0)) else []
        if not at_fault:
            raise LoaderError(f"DALI failed on a batch though on none of its samples alone: {reason}")
        for row in at_fault:
            del batch.samples[row]
            self._repair(batch, row)
        waiting = [batch for batch, _ in self._under_way]
        self._under_way.clear()
        self._running = None
        for batch in waiting:
            self.push(batch)
        assert self._running is not None
        try:
            return self._running.take()
        except RuntimeError as error:
            raise LoaderError(
                f"DALI failed on a batch again without what it could not read: {_reason(error)}"
            ) from None

    def _rows_at_fault(self, batch: Ingredients, rows: range) -> list[Row]:
        """Those of `rows` that DALI cannot make, in ascending order, by halving."""
        if self._can_make(batch, rows):
            return []
        if len(rows) == 1:
            return list(rows)
        middle = len(rows) // 2
        return [*self._rows_at_fault(batch, rows[:middle]), *self._rows_at_fault(batch, rows[middle:])]

    def _can_make(self, batch: Ingredients, rows: range) -> bool:
        """Whether DALI makes this part of the batch, in a pipeline of its own, since a failure leaves it unusable."""
        running = self._graph.build()
        feed = batch.feed(self._records, self._graph.raw, rows)
        try:
            running.feed(feed)
            running.take()
            return True
        except RuntimeError:
            return False
        finally:
            running.close()


def _reason(error: RuntimeError) -> str:
    """What DALI says happened, in one line, without its account of where in the pipeline."""
    _, _, detail = str(error).partition("encountered:")
    lines = [line.strip() for line in (detail or str(error)).splitlines()]
    return next((line for line in lines if line), "no reason given")


def _encoded(pixels: Pixels) -> NDArray[np.uint8]:
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return np.frombuffer(encoded.getvalue(), dtype=np.uint8)


_BLACK_PIXEL = np.zeros((1, 1, 3), dtype=np.uint8)
_BLACK_IMAGE = _encoded(_BLACK_PIXEL)
