"""What all loaders do alike: check what they are given, and run one epoch at a time."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import torch

from .api import Batch, LoaderOptions, ResizeMode
from .cpus import available_cpus
from .errors import FeedrateError, LoaderError, SampleError, whole_number
from .plan import PADDING_ID, Plan, PlanRows, Sequential
from .read_ahead import read_ahead
from .records import Records, records_fingerprint
from .running_epochs import EpochIterator
from .stage_writer import UNTIMED, StageWriter
from .substitutes import substitute


class EpochLoader(ABC):
    """A `Loader` whose subclass says only how the batches of one epoch are made (`_batches`)."""

    name: str
    resize_modes: ClassVar[tuple[ResizeMode, ...]]  # what it can do, its own fastest first
    reads_records: ClassVar[bool] = True  # False where epochs are made of what is in memory anyway
    counts_ready: ClassVar[bool] = False  # True where epochs are made inside `_counting`
    collates_in_workers: ClassVar[bool] = False  # True where those count the images of stage "collate"
    augments_in_workers: bool = True  # False where whoever asks for a batch does, or has a device do, all of "augment"

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        if len(records) != plan.num_samples:
            raise FeedrateError(f"the plan counts {plan.num_samples} samples and the data {len(records)}")
        self._records = records
        self._plan = plan
        self._options = options
        self._resize = options.resize or self.resize_modes[0]
        if self._resize not in self.resize_modes:
            raise FeedrateError(
                f"loader '{self.name}' cannot resize in mode '{self._resize}': it knows"
                f" {' and '.join(self.resize_modes)}, and --loader turbo knows all of them"
            )
        if options.on_bad == "substitute" and isinstance(plan.order, Sequential):
            raise FeedrateError("evaluation counts every sample: a bad one can only be an error there, not substituted")
        self._num_batches = plan.num_batches(options.shard.world_size)
        times = options.stage_times
        if times is not None and times.num_writers <= self._num_workers:
            raise FeedrateError(
                f"stage times with {times.num_writers} rows are too small for {self._num_workers} workers and whoever"
                " asks for batches: make them with one row more than there are workers"
            )
        self._caller = self._writer(0)
        self._running: weakref.ref[EpochIterator] | None = None
        self._ready: Callable[[], int | None] | None = None
        self._closed = False

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> NoReturn:
        raise TypeError(f"loader '{self.name}' is not iterated itself, an epoch of it is: for batch in loader.epoch(0)")

    def epoch(self, index: int, start: int = 0) -> EpochIterator:
        if self._closed:
            raise FeedrateError(f"loader '{self.name}' is closed: open it again")
        index, start = whole_number("epoch", index), whole_number("batch", start)
        if index < 0 or not 0 <= start <= len(self):
            raise FeedrateError(f"epoch {index}, batch {start}: an epoch has batches 0 … {len(self) - 1}")
        self._end_running("another epoch was asked for")
        batches = self._batches(index, start)
        if self.reads_records:
            ahead = self._options.num_ahead
            batches = read_ahead(batches, self._records, self._plan, self._options.shard, (index, start), ahead)
        iterator = EpochIterator(batches, self._options.max_bad, self._place(index, start))
        self._running = weakref.ref(iterator)  # weak, so that dropping the iterator ends its work at once
        return iterator

    def identity(self) -> dict[str, Any]:
        stream = {"data": records_fingerprint(self._records), **self._plan.identity()}
        return {"stream": stream, "pixels": {"loader": self.name, "resize": self._resize}}

    def num_ready(self) -> int | None:
        """Batches that `next()` would hand out one after the other without waiting; None where nobody can tell."""
        if not self.counts_ready:
            return None
        ready = self._ready  # any thread may ask, while another ends the epoch
        return ready() if ready is not None else 0

    def close(self) -> None:
        self._closed = True
        self._end_running("its loader was closed")

    @abstractmethod
    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Batches on the device. Each is valid until the next is asked for; closing gives everything up.

        Nothing may happen before the first is asked for: until then the epoch before still owns the memory.
        """

    @property
    def _num_workers(self) -> int:
        """As told, else this rank's share of the processors, as if all ranks ran on this machine."""
        return self._options.num_workers or max(1, available_cpus() // self._options.shard.world_size)

    def _writer(self, number: int) -> StageWriter:
        """Notes what stages take: number 0 in the thread that asks for batches, 1 … in the workers, each its own."""
        times = self._options.stage_times
        return UNTIMED if times is None else times.writer(number)

    @contextmanager
    def _counting(self, ready: Callable[[], int]) -> Iterator[None]:
        """Inside the block `ready` says how many batches are."""
        self._ready = ready
        try:
            yield
        finally:
            self._ready = None

    def _rows(self, epoch: int, batch: int) -> PlanRows:
        return self._plan.rows(epoch, batch, self._options.shard)

    def _place(self, epoch: int, start: int) -> Callable[[int], str]:
        """Says, of the batch with a number counted from `start`, which it is."""

        def place(number: int) -> str:
            batch = start + number
            ids = self._rows(epoch, batch).ids
            return f"while making batch {batch} of epoch {epoch}, samples {ids[0]} … {ids[-1]}"

        return place

    def _batch(self, images: torch.Tensor, rows: PlanRows) -> Batch:
        """`images`, uint8 [B, S, S, 3], as the plan's rows."""
        with self._caller.stage("collate", 0 if self.collates_in_workers else rows.num_valid):
            labels = self._records.labels[rows.ids]
            labels[rows.ids == PADDING_ID] = -1
            return Batch(
                images.permute(0, 3, 1, 2),
                torch.from_numpy(labels),
                torch.from_numpy(rows.ids),
                rows.num_valid,
                tuple(rows.substitutions),
            )

    def _or_substitute(self, rows: PlanRows, row: int, deliver: Callable[[PlanRows], None]) -> None:
        """`deliver` the sample of `row`, or do as `on_bad` says. Any thread may ask, for rows of its own."""
        try:
            deliver(rows.one(row))
        except LoaderError as error:
            if self._options.on_bad == "error":
                if isinstance(error, SampleError):
                    raise LoaderError(f"{error}; {self._remedy()}") from error
                raise
            substitute(self._plan, rows, row, error, deliver)

    def _remedy(self) -> str:
        all_of_them = "tools/convert.py finds all such images: verify in a packed set, folder --on-bad skip in folders"
        if isinstance(self._plan.order, Sequential):
            return f"an evaluation counts every image, so mend it or leave it out; {all_of_them}"
        return f"--data.on-bad substitute trains on another in its place; {all_of_them}"

    def _end_running(self, reason: str) -> None:
        iterator = self._running() if self._running else None
        if iterator is not None:
            iterator.end(reason)
