"""NVIDIA's DALI, fed with the plan's samples and rectangles: JPEGs decoded on a GPU, or by its threads without one."""

from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from .api import Batch, LoaderOptions, ResizeMode
from .crops import CenterCrop, RandomResizedCrop
from .dali_graph import Graph, RunningGraph
from .dali_stream import Ingredients, Stream
from .epochs import EpochLoader
from .errors import LoaderError
from .native import library
from .native.restart_markers import cut_to_window
from .pixels import Decoder, Renderer, load_rgb, most_pixels
from .plan import Plan, PlanRows
from .records import Records
from .stage_writer import StageWriter
from .thread_team import Part, ThreadTeam
from .timed_reading import read_timed
from .transfer import send

_MAX_CHUNK = 16  # samples a thread fetches at once
_COLOURS = ("YCbCr", "Gray")  # JPEGs of other colours are turned into RGB differently by DALI and by Pillow
_HEADER_BYTES = 1024  # within which a file with restart markers of ours says that it has them
_INSIDE = (CenterCrop, RandomResizedCrop)  # crops whose rectangles never reach past a sample's border


class DaliLoader(EpochLoader):
    """Threads of ours fetch stored bytes and look at their headers; DALI makes pixels of them, ahead of their use.

    DALI decodes JPEGs, and cuts what is stored raw if all of the set is. Any other row (PNG and the like, CMYK, a raw
    sample among JPEGs, bytes that are cut short, what DALI turns out not to read) is made by our threads as loader
    `turbo` makes it in mode `exact`, and put into DALI's batch: pixels may then differ from DALI's own by a level.

    Of its stages only reading can be seen: what DALI does with the bytes nobody else can time, and to time the few rows
    that our threads make would say nothing of the others.

    On a GPU, JPEGs are decoded whole: with nvJPEG older than 13.2, as DALI for CUDA 12 has it, nvImageCodec 0.9 gives
    windows of nearly all JPEGs to the processor, and those of the rest are reported to crash (nvImageCodec issue 55).

    On a CPU each epoch has a pipeline of its own: starting one takes milliseconds, and nothing stays when it is over.
    On a GPU an epoch that ends by itself leaves its pipeline to the next.

    Memory: the encoded bytes of `num_ahead` + 1 batches and the pixels of as many, beside what DALI's threads need;
    a GPU also holds the whole images of a batch.
    """

    name = "dali"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("exact", "bicubic")

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        super().__init__(records, plan, options)
        self._raw = bool(records.is_raw.all())
        self._unreadable: set[int] = set()  # what DALI failed on: it is not given them again
        self._kept: tuple[Graph, RunningGraph] | None = None

    def close(self) -> None:
        super().close()
        self._drop_kept()

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        batches = self._made_batches(epoch, start)
        return batches if self._options.device.type == "cpu" else _held_on_gpu(batches, self._options.device)

    def _made_batches(self, epoch: int, start: int) -> Generator[Batch]:
        num_jobs = len(self) - start
        if num_jobs == 0:
            return
        first = self._rows(epoch, start)  # also makes the epoch's order, before any thread could wait for it
        fetched: dict[int, _Fetched] = {}

        def rows_of(job: int) -> PlanRows:
            fetched[job] = _Fetched(self._rows(epoch, start + job))
            return fetched[job].ingredients.rows

        def fetcher(number: int) -> _Fetcher:
            return _Fetcher(self, fetched, self._writer(number))

        def push(job: int) -> None:
            team.finished(job)
            stream.push(fetched.pop(job).ingredients)

        def push_all_that_are_fetched(job: int) -> None:
            while len(stream) < self._options.num_ahead and job in fetched and fetched[job].is_complete:
                push(job)
                job += 1

        chunk = max(1, min(_MAX_CHUNK, len(first) // (4 * self._num_workers)))
        graph = self._graph(first)
        with (
            Stream(graph, self._records, _is_suspect, self._repair, self._taken_up(graph)) as stream,
            ThreadTeam(rows_of, fetcher, num_jobs, self._options.num_ahead + 1, chunk, self._num_workers) as team,
        ):
            for job in range(num_jobs):
                if not len(stream):
                    push(job)  # raises if it failed, which is no sooner than all before it are delivered
                push_all_that_are_fetched(job + len(stream))
                rows, images = stream.take()
                team.give_back(job)
                push_all_that_are_fetched(job + 1 + len(stream))
                yield self._on_device(self._batch(images, rows))
            if graph.outlives_epochs and not self._closed and (running := stream.release()):
                self._kept = graph, running

    def _taken_up(self, graph: Graph) -> RunningGraph | None:
        """What the epoch before has left, if it is the same."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] == graph:
            return kept and kept[1]
        kept[1].close()
        return None

    def _drop_kept(self) -> None:
        if self._kept:
            self._kept[1].close()
        self._kept = None

    def _on_device(self, batch: Batch) -> Batch:
        """DALI's pixels are there already."""
        return replace(batch, labels=send(batch.labels, self._options.device))

    def _graph(self, like: PlanRows) -> Graph:
        return Graph(
            num_rows=len(like),
            size_px=like.size_px,
            fill=like.fill,
            cubic=self._resize == "bicubic",
            raw=self._raw,
            pads=not isinstance(self._plan.view.crop, _INSIDE),
            whole=self._options.device.type == "cuda",
            num_threads=self._num_workers,
            device=self._options.device,
            largest=(int(self._records.widths.max()), int(self._records.heights.max())),
        )

    def _renderer(self, like: PlanRows) -> Renderer:
        return Renderer(like.size_px, like.fill, "bicubic" if self._resize == "bicubic" else "exact")

    def _repair(self, batch: Ingredients, row: int, is_suspect: bool) -> None:
        """Make a row that DALI may have failed on; LoaderError if it cannot be made by other means either."""
        if is_suspect:  # its batch mates must look in later epochs as if they had never met it
            self._unreadable.add(int(batch.rows.ids[row]))
        self._paint(batch, row, Decoder(), self._renderer(batch.rows))

    def _paint(self, batch: Ingredients, row: int, decode: Decoder, render: Renderer) -> None:
        """Make the pixels of a row here, or those of what the plan substitutes for it."""

        def deliver(one: PlanRows) -> None:
            pixels = np.empty((one.size_px, one.size_px, 3), dtype=np.uint8)
            render(load_rgb(self._records, int(one.ids[0]), decode), one.rects[0].tolist(), bool(one.flips[0]), pixels)
            batch.painted[row] = pixels

        self._or_substitute(batch.rows, row, deliver)

    def _sample_for_dali(self, index: int, rect: list[int], times: StageWriter) -> NDArray[np.uint8] | None:
        """What is stored, if DALI will make of it the pixels that it should; else None."""
        width, height = int(self._records.widths[index]), int(self._records.heights[index])
        data = read_timed(self._records, index, rect, times)
        if index in self._unreadable or bool(self._records.is_raw[index]) != self._raw:
            return None
        if self._raw:
            return data.reshape(height, width, 3) if data.size == 3 * width * height else None
        return data if _is_plain_jpeg(data, width, height) else None


class _Fetched:
    """A batch being fetched."""

    def __init__(self, rows: PlanRows) -> None:
        self.ingredients = Ingredients(rows)
        self._done: list[int] = []  # rows in each finished part: appending needs no lock

    def done(self, num_rows: int) -> None:
        self._done.append(num_rows)

    @property
    def is_complete(self) -> bool:
        """Never true where a row failed."""
        return sum(self._done) == len(self.ingredients.rows)


class _Fetcher:
    """One thread's work: read what DALI will decode, paint what it shall not."""

    def __init__(self, loader: DaliLoader, fetched: dict[int, _Fetched], times: StageWriter) -> None:
        self._times = times
        self._loader = loader
        self._fetched = fetched
        self._decode = Decoder()
        self._render: Renderer | None = None

    def __call__(self, rows: PlanRows, part: Part) -> None:
        fetched = self._fetched[part.job]
        for row in range(part.start, part.stop):
            index = int(rows.ids[row])
            if index >= 0:
                self._fetch(fetched.ingredients, row, index)
        fetched.done(part.stop - part.start)

    def _fetch(self, batch: Ingredients, row: int, index: int) -> None:
        try:
            sample = self._loader._sample_for_dali(index, batch.rows.rects[row].tolist(), self._times)
        except LoaderError:
            sample = None  # painting fails in the same way, and says what then happens
        if sample is not None:
            if not self._loader._raw:
                sample = _cut(sample, batch, row)
            batch.samples[row] = sample
            return
        self._render = self._render or self._loader._renderer(batch.rows)
        self._loader._paint(batch, row, self._decode, self._render)


def _cut(jpeg: NDArray[np.uint8], batch: Ingredients, row: int) -> NDArray[np.uint8]:
    """Only what the row's rectangle needs, where the file has restart markers to cut it along; else the whole."""
    left, top, width, height = batch.rows.rects[row].tolist()
    if b"\xff\xdd\x00\x04" in jpeg[:_HEADER_BYTES].tobytes() and library.load() is not None:
        part = cut_to_window(jpeg, (left, top, width, height))
        if part is not None:
            batch.origins[row] = part[1][:2]
            return part[0]
    return jpeg


def _is_plain_jpeg(data: NDArray[np.uint8], width: int, height: int) -> bool:
    """Whether DALI can be trusted with it: whole as far as its ends tell, of the recorded size, in common colours.

    DALI decodes only the part it needs, so it would not notice that the rest is missing, or that the size is another.
    """
    if data[:3].tobytes() != b"\xff\xd8\xff" or data[-2:].tobytes() != b"\xff\xd9":
        return False
    if width * height > most_pixels():
        return False
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return (found_width, found_height) == (width, height) and colours in _COLOURS


def _is_suspect(data: NDArray[np.uint8]) -> bool:
    """Whether libjpeg so much as warns of it."""
    try:
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return True
    return False


def _held_on_gpu(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The same batches, each kept until the consumer's stream has done what was asked of it before the next `next()`.

    The memory is DALI's, whose allocator knows nothing of torch's streams: given back sooner, DALI might decode into
    it what a training step is still reading. At most two batches wait for their step to end.
    """
    held: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()
    try:
        for batch in batches:
            images = batch.images
            yield batch
            # blocking, or waiting for it would keep a processor busy
            used = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            used.record(torch.cuda.current_stream(device))
            held.append((images, used))
            while len(held) > 2 or (held and held[0][1].query()):  # type: ignore[no-untyped-call]
                held[0][1].synchronize()
                held.popleft()  # only now: nothing else refers to these images any more
    finally:
        torch.cuda.current_stream(device).synchronize()
        batches.close()
