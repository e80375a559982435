"""FFCV's own pipeline with one operation of ours in it, which decodes what the plan says.

What runs of FFCV: its `Graph`, which builds the pipeline from operations and generates its code; its `EpochIterator`,
which runs it batch by batch in a thread of its own, through a ring of slots and a queue; its resize in libffcv, and
the libturbojpeg that is linked with. What does not: its `.beton` reader and cache managers (seconds and hundreds of
megabytes for a large file that `BetonRecords` has read already), its orders and crops (the plan's instead), its
compiler (nothing it compiles outlives the process), its JPEG call (a less exact transform), and its allocator (it
allocates, and page-locks, all memory anew each epoch).

Of its known faults these are mended here: an error in the pipeline's thread, which left the consumer waiting for ever,
is handed on; leaving an epoch early, which left the thread behind, ends it; torch's threads and CUDA are left alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, takewhile
from queue import Empty
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import LoaderError
from .ffcv_batch import PlannedBatch
from .ffcv_compiled import CLOCK_CELLS, STATUS, TRIED, decode_rows, free_decompressor, new_decompressor
from .ffcv_shims import private_module, tamed_import
from .plan import PlanRows
from .stage_writer import StageWriter

with tamed_import():
    from ffcv.fields.rgb_image import RGBImageField
    from ffcv.loader import Loader
    from ffcv.memory_managers.base import MemoryContext
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.operation import Operation
    from ffcv.pipeline.pipeline_spec import PipelineSpec

_SCRATCH_BYTES = 16 << 20  # a thread keeps no more than this; a larger image's memory goes when it is done
_POLL_S = 0.2


class _NoCompiler:
    """In place of FFCV's `Compiler`: our code is compiled, and cached, already; numbers of threads are passed in."""

    @staticmethod
    def compile(code: Callable[..., Any], signature: Any = None) -> Callable[..., Any]:
        return code

    @staticmethod
    def set_num_threads(num_threads: int) -> None:
        pass


_Graph: Any = private_module("ffcv.pipeline.graph", Compiler=_NoCompiler).Graph
# no CUDA there: what crosses the bus, and when memory may be used again, is `transfer`'s business
_EpochIterator: Any = private_module("ffcv.loader.epoch_iterator", Compiler=_NoCompiler, IS_CUDA=False).EpochIterator


# make one row by other means, or raise LoaderError; the last: whether its reading has been noted already
Mend = Callable[[PlanRows, int, NDArray[np.uint8], StageWriter, bool], None]


class PlannedDecoder(Operation):  # type: ignore[misc]
    """FFCV's decoding operation, as the plan says. Its threads begin a batch when the one before has no rows to take.

    largest    pixels of the largest image;  mend  called, by any thread, for rows the compiled code cannot make
    writer_of  for threads 1 … num_threads: what they note their stages' times with
    """

    def __init__(
        self, like: PlanRows, largest: int, num_threads: int, mend: Mend, writer_of: Callable[[int], StageWriter]
    ) -> None:
        super().__init__()
        self._size_px = like.size_px
        self._fill = np.array(like.fill, np.int64)
        self._mend = mend
        self._num_threads = num_threads
        self._scratch_bytes = 3 * like.size_px**2 + min(3 * largest, _SCRATCH_BYTES)
        self._idle: list[_Means] = []
        self._writers = map(writer_of, count(1))  # a new one for each of the threads
        self._stopping = False
        self._threads = ThreadPoolExecutor(num_threads, "feedrate-ffcv")

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        """What FFCV asks each operation for: what comes out, and the memory a row of it needs."""
        shape, dtype = (self._size_px, self._size_px, 3), np.dtype("u1")
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        """The function that FFCV's generated code calls for each batch."""
        return self._begin

    def _begin(self, batch: PlannedBatch, slab: NDArray[np.uint8], _metadata: Any, stored: Any) -> NDArray[np.uint8]:
        """Begin to fill `slab`, uint8 [rows, S, S, 3]; whoever takes the batch from FFCV waits for the end."""
        batch.work += [self._threads.submit(self._work, batch, slab, stored) for _ in range(self._num_threads)]
        return slab

    def _work(self, batch: PlannedBatch, slab: NDArray[np.uint8], stored: NDArray[np.uint8]) -> None:
        try:
            means = self._idle.pop()
        except IndexError:  # asked in this way, since another thread may take the last in between
            means = _Means(self._scratch_bytes, next(self._writers))
        try:
            while not self._stopping and (part := batch.take(self._num_threads)):
                table, rows = batch.table[part.start : part.stop], slab[part.start : part.stop]
                decode_rows(
                    table, stored, rows, self._fill, means.scratch, means.handle, means.times.cells, means.clock
                )
                for row in part:
                    if batch.table[row, STATUS]:
                        self._mend_row(batch, row, slab[row], means.times)
                batch.made(len(part))
        finally:
            self._idle.append(means)

    def _mend_row(self, batch: PlannedBatch, row: int, out: NDArray[np.uint8], times: StageWriter) -> None:
        try:
            self._mend(batch.rows, row, out, times, bool(batch.table[row, STATUS] == TRIED))
        except LoaderError as error:
            batch.failures.append((row, error))

    def close(self) -> None:
        """End the threads and free their memory. No batch may begin any more."""
        self._stopping = True
        self._threads.shutdown(cancel_futures=True)
        while self._idle:
            self._idle.pop().close()


class _Means:
    """One thread's scratch memory, decompressor and clock."""

    def __init__(self, scratch_bytes: int, times: StageWriter) -> None:
        self.scratch = np.empty((1, 1, scratch_bytes), np.uint8)
        self.handle = new_decompressor()
        self.times = times
        self.clock = np.zeros(CLOCK_CELLS, np.int64)

    def close(self) -> None:
        free_decompressor(self.handle)


class _MappedFile(MemoryContext):  # type: ignore[misc]
    """FFCV's view of the file's bytes, and the memory manager that gives it: all is mapped, nothing is scheduled."""

    state = None  # FFCV declares it abstract

    def __init__(self, stored: NDArray[np.uint8]) -> None:
        self.state = stored

    def schedule_epoch(self, _batches: Any) -> "_MappedFile":
        return self

    def __enter__(self) -> "_MappedFile":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _SlabGraph(_Graph):  # type: ignore[misc]
    """FFCV's graph, whose memory is ours."""

    slabs: Sequence[NDArray[np.uint8]]

    def allocate_memory(self, _batch_size: int, _num_slots: int) -> dict[str, dict[int, Any]]:
        (decoder,) = self.root_nodes
        return {"operation": {decoder.id: self.slabs}, "shared": {decoder.id: None}}


class PlannedLoader(Loader):  # type: ignore[misc]
    """FFCV's `Loader` for one epoch, of which nothing is read from the file.

    stored  uint8, all bytes of the file;  slabs  uint8 [rows, S, S, 3] each, at least 3
    """

    def __init__(
        self, decoder: PlannedDecoder, stored: NDArray[np.uint8], slabs: Sequence[torch.Tensor], batch_size: int
    ) -> None:
        # not FFCV's constructor: it reads the whole file's tables, seeds itself from NumPy's global state, and compiles
        self.decoder = decoder
        self.batch_size = batch_size
        self.batches_ahead = len(slabs) - 2  # FFCV's ring: one slot being made, one handed out, the others ready
        assert self.batches_ahead > 0, "FFCV's queue would know no limit"
        self.num_workers = 1
        self.reader = self  # asked for `metadata`, which our operation needs none of
        self.metadata = {"f0": None}
        self.memory_manager = _MappedFile(stored)
        pipelines = {"image": PipelineSpec("image", decoder)}
        self.graph = _SlabGraph(pipelines, {"image": RGBImageField()}, {"image": 0}, self.metadata, None)
        self.graph.slabs = [slab.numpy() for slab in slabs]
        self.generate_code()


class PlannedEpoch(_EpochIterator):  # type: ignore[misc]
    """FFCV's iterator over one epoch, that ends when it is told to and says when it fails.

    Gives (slot, rows): the slab that holds the batch until the next is asked for, and the plan's rows of it.
    """

    def __init__(
        self,
        loader: PlannedLoader,
        planned: Callable[[int], PlannedBatch],
        num_batches: int,
        times: StageWriter,
    ) -> None:
        self._times = times
        self._planned = planned
        self._num_batches = num_batches
        self._begun: deque[PlannedBatch] = deque()
        self._num_given = 0
        self._failure: BaseException | None = None
        super().__init__(loader, ())

    def start(self) -> None:
        """Called by FFCV's constructor as its last act."""
        self.iter_ixes = self._batches()
        super().start()

    def _batches(self) -> Iterator[PlannedBatch]:
        for number in range(self._num_batches):
            batch = self._planned(number)
            if self.terminate_event.is_set():
                return
            self._begun.append(batch)
            yield batch

    def run(self) -> None:
        """In FFCV's thread. FFCV puts None when all batches have begun, and nothing when there was an error."""
        try:
            super().run()
        except BaseException as error:
            self._failure = error

    def __next__(self) -> tuple[int, PlanRows]:
        with self._times.stage("hand-off", 0) as span:
            slot, batch = self._next_begun()
            rows = batch.finish()
            span.not_before(batch.finished_ns)
            span.images = rows.num_valid
            return slot, rows

    def _next_begun(self) -> tuple[int, PlannedBatch]:
        while self._num_given < self._num_batches:
            is_over = not self.is_alive()  # asked first: what it put before it ended is there when we look
            try:
                slot, _ = self.output_queue.get(timeout=0 if is_over else _POLL_S)
            except Empty:
                if not is_over:
                    continue
                if self._failure is not None:
                    raise self._failure from self._failure.__cause__
                raise LoaderError(
                    f"FFCV's thread ended after {self._num_given} of {self._num_batches} batches and gave no reason:"
                    " start again, or read the same files by --loader turbo"
                ) from None
            self._num_given += 1
            return slot, self._begun.popleft()
        raise StopIteration

    def num_ready(self) -> int:
        """Finished batches that come next, one after the other. Any thread may ask."""
        return sum(1 for _ in takewhile(lambda batch: batch.finished_ns, tuple(self._begun)))

    def close(self) -> None:
        """End FFCV's thread and ours. Idempotent."""
        self.terminate_event.set()
        while self.is_alive():
            try:
                self.output_queue.get_nowait()  # FFCV's thread may be waiting for room
            except Empty:
                self.join(0.005)
        self.closed = True
        self.loader.decoder.close()
