"""The reference: torch's DataLoader, Pillow's decoding, torchvision's transforms. Slower than others, runs anywhere."""

import errno
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from .api import Batch, ResizeMode
from .epochs import EpochLoader
from .errors import LoaderError
from .held_signals import held_signals
from .pixels import Pixels, load_image
from .plan import PlanRows
from .records import Records
from .stage_writer import StageWriter
from .transfer import to_device
from .worker_board import Board, shared
from .worker_starts import came_to_life, end_half_begun

_Job = tuple[int, PlanRows]  # number of the batch in the epoch, what it is made of
_Deliver = Callable[[PlanRows], None]

_INTERPOLATIONS = {"exact": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
_NOT_FOR_WORKERS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_LOOK_FOR_PARENT_S = 5.0
_PATIENCE_S = (10.0, 20.0, 40.0, 80.0, 160.0)  # a worker lives after milliseconds, but where processors are scarce


class TorchvisionLoader(EpochLoader):
    """Worker processes make a whole batch each, so that their number cannot change a bit.

    They are started anew for every epoch: workers that outlive one would first have to finish what an epoch left
    early had asked of them. At least one batch a worker is under way, even where that is more than `num_ahead`.

    Memory: the batches under way and the one handed out, allocated once and shared with the workers by being there when
    they are forked. DataLoader's own way, a file in /dev/shm for each batch, kills a worker where that is small, as it
    is in a container unless asked otherwise. Besides, for each worker the image it is at.
    """

    name = "torchvision"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("exact", "bicubic")
    counts_ready: ClassVar[bool] = True
    collates_in_workers: ClassVar[bool] = True

    _slabs: tuple[Pixels, ...] = ()
    _slabs_pid = 0  # the process that allocated them

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        return to_device(self._host_batches(epoch, start), self._options.device, self._caller)

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        """Batch j lies in slab j modulo their number.

        DataLoader asks for one batch more whenever one is taken from it. So when batch j is taken, the one it asks for
        lies where batch j - 1 lay, which has just been given back.
        """
        if start == len(self):
            return
        num_workers = self._num_workers
        num_ahead = -(-self._options.num_ahead // num_workers)  # a worker
        slabs = self._slabs_for(num_workers * num_ahead + 1, self._rows(epoch, start))
        made, board = self._alive(epoch, start, slabs, num_ahead)
        try:
            with self._counting(board.num_ready):
                for batch in range(start, len(self)):
                    with self._caller.stage("hand-off", 0) as span:
                        rows = self._next_rows(made, board, epoch)
                        span.images = rows.num_valid
                        span.not_before(board.take(batch))
                    yield self._batch(torch.from_numpy(slabs[batch % len(slabs)]), rows)
        finally:
            board.leave()
            # DataLoader has no public way to end early; waiting for its iterator's collection would leave it to chance
            made._shutdown_workers()

    def _alive(self, epoch: int, start: int, slabs: tuple[Pixels, ...], num_ahead: int) -> tuple[Any, Board]:
        """DataLoader's iterator whose workers all run, and what they write on.

        A process that is forked while another thread, such as one of gloo's, enters the interpreter can wait forever
        for a lock that nobody holds any more (CPython 3.11, in `PyOS_AfterFork_Child`; 3.12 takes a new lock first).
        Workers of which one does not come to life are ended, and others are forked.

        Raises LoaderError where none do in the end.
        """
        num_workers = self._num_workers
        for patience_s in _PATIENCE_S:
            board = Board(num_workers, len(slabs), start)
            jobs = ((batch, self._rows(epoch, batch)) for batch in range(start, len(self)))
            how = _INTERPOLATIONS[self._resize]
            maker = _Made(self._records, slabs, board, self._or_substitute, self._writer, how)
            made = self._started(maker, jobs, num_ahead)
            all_live = False
            try:
                all_live = came_to_life(made._workers, board, patience_s)
            finally:
                if not all_live:
                    for worker in made._workers:
                        worker.kill()
                    made._shutdown_workers()
            if all_live:
                return made, board
            warnings.warn(
                f"a worker process of loader 'torchvision' did not come to life within {patience_s:g} s:"
                f" {num_workers} new ones take over",
                stacklevel=2,
            )
        raise LoaderError(
            f"worker processes of loader 'torchvision' did not come to life in {len(_PATIENCE_S)} tries, the last of"
            f" {_PATIENCE_S[-1]:g} s: the machine may be out of processors; fewer --data.workers help then"
        )

    def _started(self, made: "_Made", jobs: Iterator[_Job], num_ahead: int) -> Any:
        loader = DataLoader(
            made,
            sampler=jobs,  # any iterator serves: its items go to the data set as they are
            batch_size=None,  # each item is one batch already
            num_workers=self._num_workers,
            prefetch_factor=num_ahead,
            collate_fn=_as_it_is,
            worker_init_fn=made.start,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # else every epoch would draw from, and so change, torch's global generator
        )
        try:
            with held_signals(), _own_child_handler(), _born_deaf():
                return iter(loader)
        except OSError as error:
            end_half_begun(error)
            if error.errno != errno.ENOSPC:
                raise
            raise LoaderError(
                "worker processes of loader 'torchvision' cannot be started, since /dev/shm has no room for their"
                " locks: make some there, or take loader 'turbo', which needs none"
            ) from error

    def _next_rows(self, made: Any, board: "Board", epoch: int) -> PlanRows:
        """What the next batch came to be made of. A worker's error, or its death, is raised."""
        try:
            result: PlanRows | LoaderError = next(made)
        except RuntimeError as error:
            dead = [number for number, worker in enumerate(made._workers) if worker.exitcode]
            if "exited unexpectedly" not in str(error) or not dead:
                raise
            raise LoaderError(self._obituary(made._workers[dead[0]].exitcode, *board.at(dead[0]), epoch)) from error
        if isinstance(result, LoaderError):
            raise result
        return result

    def _obituary(self, exitcode: int, batch: int, sample: int, epoch: int) -> str:
        how = f"was killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with code {exitcode}"
        doing = "while it waited for work"
        if sample >= 0:
            doing = f"while making sample {sample} ({self._records.where(sample)}) of batch {batch} of epoch {epoch}"
        return (
            f"a worker process of loader 'torchvision' died: it {how} {doing};"
            " where memory ran out, fewer --data.workers or --data.batches-ahead help"
        )

    def _slabs_for(self, num_slabs: int, like: PlanRows) -> tuple[Pixels, ...]:
        """uint8 [B, S, S, 3] each, kept from epoch to epoch while the shape stays; a process forked since has its own,
        since in these the parent's workers write, and those of its other children."""
        shape = (len(like), like.size_px, like.size_px, 3)
        if not self._slabs or self._slabs[0].shape != shape or self._slabs_pid != os.getpid():
            self._slabs = ()  # gone before the new ones come, not after
            self._slabs = tuple(shared(shape, np.uint8) for _ in range(num_slabs))
            self._slabs_pid = os.getpid()
        return self._slabs

    def close(self) -> None:
        super().close()
        self._slabs = ()


class _Made(Dataset[PlanRows | LoaderError]):
    """Runs in the workers: makes the pixels of a job and returns its rows, in which samples may be substituted."""

    def __init__(
        self,
        records: Records,
        slabs: tuple[Pixels, ...],
        board: Board,
        or_substitute: Callable[[PlanRows, int, _Deliver], None],
        writer_of: Callable[[int], StageWriter],
        interpolation: InterpolationMode,
    ) -> None:
        self._records = records
        self._slabs = slabs
        self._board = board
        self._or_substitute = or_substitute
        self._writer_of = writer_of
        self._interpolation = interpolation
        self._times: StageWriter | None = None  # this worker's

    def start(self, worker: int) -> None:
        """The first that a worker does."""
        _obey_the_parent_alone()
        self._board.be_born(worker)

    def __getitem__(self, job: _Job) -> PlanRows | LoaderError:
        batch, rows = job
        self._times = self._times or self._writer_of(get_worker_info().id + 1)  # type: ignore[union-attr]
        images = self._slabs[batch % len(self._slabs)]
        num_valid = rows.num_valid
        images[num_valid:] = 0
        try:
            for row in range(num_valid):
                if self._board.is_leaving:
                    break
                self._or_substitute(rows, row, lambda one, out=images[row]: self._make(batch, one, out))  # type: ignore[misc]
        except LoaderError as error:
            return LoaderError(str(error))  # returned, since DataLoader would rewrite the message of one raised
        finally:
            self._board.write(batch, -1)
            self._board.finish(batch)
        return rows

    def _make(self, batch: int, one: PlanRows, out: Pixels) -> None:
        """One sample's pixels, uint8 [S, S, 3]."""
        assert self._times is not None
        sample, rect = int(one.ids[0]), one.rects[0].tolist()
        self._board.write(batch, sample)
        image = load_image(self._records, sample, self._times, rect)
        with self._times.stage("augment"):
            image = _cut(image, rect, one.fill)
            image = F.resize(image, [one.size_px, one.size_px], self._interpolation, antialias=True)
            image = F.hflip(image) if one.flips[0] else image
        with self._times.stage("collate"):
            out[:] = np.asarray(image)


def _as_it_is(item: Any) -> Any:
    """DataLoader's own would make tensors of what it can."""
    return item


def _cut(image: Image.Image, rect: list[int], fill: tuple[int, int, int]) -> Image.Image:
    """The rectangle (left, top, width, height), padded with `fill` where it reaches past the border."""
    left, top, width, height = rect
    padding = [max(0, -left), max(0, -top), max(0, left + width - image.width), max(0, top + height - image.height)]
    if any(padding):
        image = F.pad(image, padding, fill=fill)
        left, top = left + padding[0], top + padding[1]
    part: Image.Image = F.crop(image, top, left, height, width)
    return part


def _obey_the_parent_alone() -> None:
    """Signals that ask a run to stop often reach every process of it; the parent alone decides what they mean."""
    for number in _NOT_FOR_WORKERS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_await_the_parents_end, args=(os.getppid(),), daemon=True).start()


def _await_the_parents_end(parent: int) -> None:
    """End this worker when its parent sends SIGTERM or is gone, also while it is stuck in reading a file."""
    while os.getppid() == parent:
        told = signal.sigtimedwait([signal.SIGTERM], _LOOK_FOR_PARENT_S)
        if told is not None and told.si_pid == parent:
            os._exit(0)
    os._exit(1)


@contextmanager
def _born_deaf() -> Iterator[None]:
    """Processes forked in here have those signals blocked: SIGTERM is then left to `_await_the_parents_end`, and the
    others kill none before it can ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_NOT_FOR_WORKERS, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _own_child_handler() -> Iterator[None]:
    """Undo what DataLoader does to SIGCHLD.

    Its handler raises wherever the main thread happens to be when a worker dies, in the middle of a training step for
    instance. Without it the death is found by the next `next()`, which looks every five seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)
