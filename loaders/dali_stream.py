"""Batches on their way through DALI: what each is made from, in order, and on after a sample that DALI cannot read."""

import warnings
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
from .transfer import send

Row = int
# paints a row, whose bytes are suspect or not, that DALI may have failed on; or raises LoaderError
Repair = Callable[["Ingredients", Row, bool], None]


class Ingredients:
    """What one batch is made from: stored samples for DALI, and pixels made elsewhere.

    samples  stored bytes by row, for DALI to decode (or pixels, in a raw graph)
    origins  by row, where a JPEG that is only part of its sample begins in it: (left, top)
    painted  finished pixels by row, uint8 [size_px, size_px, 3]
    Rows in neither are padding and become black. Different threads may fill different rows.
    """

    def __init__(self, rows: PlanRows) -> None:
        self.rows = rows
        self.samples: dict[Row, NDArray[np.uint8]] = {}
        self.origins: dict[Row, tuple[int, int]] = {}
        self.painted: dict[Row, Pixels] = {}

    def feed(self, records: Records, graph: Graph) -> Feed:
        """For DALI; rows that it shall not make become one black pixel."""
        count = len(self.rows)
        wanted = list(self.samples)
        samples = [_BLACK_PIXEL if graph.raw else _BLACK_IMAGE] * count
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
        rect_start[wanted] = start - window_start[wanted] if graph.windows else start
        rect_shape[wanted] = rects[:, 3:1:-1]
        for row in self.origins.keys() & self.samples.keys():
            (window_start if graph.windows else rect_start)[row] -= self.origins[row][::-1]
        flips[wanted, 0] = self.rows.flips[wanted]
        return Feed(samples, window_start, window_shape, rect_start, rect_shape, np.ascontiguousarray(flips[:, 0]))

    def finish(self, images: torch.Tensor) -> torch.Tensor:
        """Put the painted rows into what DALI made, uint8 [n, size_px, size_px, 3] on any device."""
        if self.painted:
            rows = sorted(self.painted)
            pixels = torch.from_numpy(np.stack([self.painted[row] for row in rows]))
            images[send(torch.tensor(rows), images.device)] = send(pixels, images.device)
        return images


class Stream:
    """Batches through one pipeline, in order.

    DALI gives up a whole batch, and says that its pipeline is broken, if it cannot decode one sample; it does not say
    which. Nor may it be asked again: after its decoder failed on one of 37 samples, DALI 2.4 often ended the process
    with a segmentation fault. So headers are looked at before a sample comes here, and this is for what they do not
    tell: rows that `is_suspect`, or with a warning all if none is, are handed to `repair`, and a new pipeline goes on,
    fed with all else that was under way. On a GPU, whose decoder leaves to the processor what it cannot read itself, a
    batch without a suspect is an error: it is the GPU that failed, and what it does for a step would take the host
    seconds. Close it, or use it in a `with`.

    is_suspect  whether the stored bytes, uint8 [size], may be what DALI failed on
    repair      makes a row by other means; raises LoaderError
    running     a pipeline of this graph with nothing under way, as another stream released it
    """

    def __init__(
        self,
        graph: Graph,
        records: Records,
        is_suspect: Callable[[NDArray[np.uint8]], bool],
        repair: Repair,
        running: RunningGraph | None = None,
    ) -> None:
        self._graph = graph
        self._records = records
        self._is_suspect = is_suspect
        self._repair = repair
        self._under_way: deque[tuple[Ingredients, Feed]] = deque()
        self._running = running

    def __len__(self) -> int:
        """Batches under way."""
        return len(self._under_way)

    def push(self, batch: Ingredients) -> None:
        """Begin a batch; does not wait."""
        feed = batch.feed(self._records, self._graph)
        self._under_way.append((batch, feed))
        if self._running is None:
            self._running = self._built()
        self._running.feed(feed)

    def take(self) -> tuple[PlanRows, torch.Tensor]:
        """Wait for the oldest batch: its rows, and uint8 [n, size_px, size_px, 3] on the device."""
        images = self._made()
        while isinstance(images, str):
            self._mend(images)
            images = self._made()
        batch, _ = self._under_way.popleft()
        return batch.rows, batch.finish(images)

    def _built(self) -> RunningGraph:
        try:
            return self._graph.build()
        except RuntimeError as error:  # of a GPU whose driver DALI was not built for, for instance
            reason = _reason(error)
        raise LoaderError(f"DALI cannot work on {self._graph.device} ({reason}): --loader turbo does without DALI")

    def _made(self) -> torch.Tensor | str:
        """What DALI made of the oldest batch, or why it did not.

        The exception goes no further: its traceback would keep the pipeline, which reads memory that is given up.
        """
        assert self._running is not None
        try:
            return self._running.take()
        except RuntimeError as error:
            return _reason(error)

    def release(self) -> RunningGraph | None:
        """The pipeline, for another stream, when every batch has been taken. This one is over."""
        assert not self._under_way
        running, self._running = self._running, None
        return running

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

    def _mend(self, reason: str) -> None:
        """Make the rows of the oldest batch that DALI may have failed on by other means, and begin again."""
        batch, _ = self._under_way[0]
        if not batch.samples:
            raise LoaderError(
                f"DALI failed on a batch of which it had to make no sample ({reason}): --loader turbo does without DALI"
            )
        if self._running is not None:
            self._running.close()
        suspects = [] if self._graph.raw else [r for r in sorted(batch.samples) if self._is_suspect(batch.samples[r])]
        if not suspects:
            self._tell_of_failure(reason)
        for row in suspects or sorted(batch.samples):
            del batch.samples[row]
            self._repair(batch, row, bool(suspects))
        waiting = [batch for batch, _ in self._under_way]
        self._under_way.clear()
        self._running = None
        for batch in waiting:
            self.push(batch)

    def _tell_of_failure(self, reason: str) -> None:
        """On a batch whose samples all look sound."""
        told = f"DALI failed on a batch of which every sample looks sound ({reason})"
        if self._graph.on_gpu:
            raise LoaderError(f"{told}: --loader turbo decodes without the GPU")
        warnings.warn(f"{told}: loader 'dali' made that batch by other means, which takes longer", stacklevel=2)


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
