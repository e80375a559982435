"""The reference: torch's DataLoader, Pillow's decoding, torchvision's transforms. Slower than others, runs anywhere."""

import signal
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from .api import Batch, LoaderError, ResizeMode
from .epochs import EpochLoader
from .pixels import load_image
from .plan import PlanRows
from .records import Records
from .transfer import to_device


class TorchvisionLoader(EpochLoader):
    """Worker processes make a whole batch each, so that their number cannot change a bit.

    They are started anew for every epoch: workers that outlive one would first have to finish what an epoch left
    early had asked of them. At least one batch a worker is under way, even where that is more than `num_ahead`.
    """

    name = "torchvision"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("exact",)

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        return to_device(self._host_batches(epoch, start), self._options.device)

    def _host_batches(self, epoch: int, start: int) -> Generator[Batch]:
        asked_for: deque[PlanRows] = deque()
        results = self._started(self._plan_rows(epoch, start, asked_for))
        try:
            for _ in range(start, len(self)):
                images = _next_result(results)
                yield self._batch(images, asked_for.popleft())
        finally:
            # DataLoader has no public way to end early; waiting for its iterator's collection would leave it to chance
            results._shutdown_workers()

    def _plan_rows(self, epoch: int, start: int, asked_for: deque[PlanRows]) -> Iterator[PlanRows]:
        """What the workers are asked for, in order; results come back in the same order."""
        for index in range(start, len(self)):
            rows = self._rows(epoch, index)
            asked_for.append(rows)
            yield rows

    def _started(self, rows: Iterator[PlanRows]) -> Any:
        num_workers = self._num_workers
        loader = DataLoader(
            _RenderedRows(self._records),
            sampler=rows,  # any iterator serves: its items go to the data set as they are
            batch_size=None,  # each item is one batch already
            num_workers=num_workers,
            prefetch_factor=-(-self._options.num_ahead // num_workers),
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # else every epoch would draw from, and so change, torch's global generator
        )
        with _own_child_handler(), _born_deaf_to_interrupts():
            return iter(loader)


class _RenderedRows(Dataset[torch.Tensor | LoaderError]):
    """Runs in the workers: the plan's rows in, uint8 [B, S, S, 3] out."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __getitem__(self, rows: PlanRows) -> torch.Tensor | LoaderError:
        # made in shared memory at once, so that handing it to the parent copies nothing
        images = torch.zeros(len(rows), rows.size_px, rows.size_px, 3, dtype=torch.uint8)
        images.share_memory_()  # type: ignore[no-untyped-call]
        try:
            for row in range(rows.num_valid):
                image = load_image(self._records, int(rows.ids[row]))
                image = _cut(image, rows.rects[row].tolist(), rows.fill)
                image = F.resize(image, [rows.size_px, rows.size_px], InterpolationMode.BILINEAR, antialias=True)
                if rows.flips[row]:
                    image = F.hflip(image)
                images[row] = F.pil_to_tensor(image).permute(1, 2, 0)
        except LoaderError as error:
            return LoaderError(str(error))  # returned, since DataLoader would rewrite the message of one raised
        return images


def _cut(image: Image.Image, rect: list[int], fill: tuple[int, int, int]) -> Image.Image:
    """The rectangle (left, top, width, height), padded with `fill` where it reaches past the border."""
    left, top, width, height = rect
    padding = [max(0, -left), max(0, -top), max(0, left + width - image.width), max(0, top + height - image.height)]
    if any(padding):
        image = F.pad(image, padding, fill=fill)
        left, top = left + padding[0], top + padding[1]
    part: Image.Image = F.crop(image, top, left, height, width)
    return part


def _next_result(results: Iterator[torch.Tensor | LoaderError]) -> torch.Tensor:
    try:
        result = next(results)
    except RuntimeError as error:
        if "worker" not in str(error).lower():
            raise
        raise LoaderError(
            f"a worker process of loader 'torchvision' died ({error}): often memory ran out, use fewer --num-workers"
        ) from error
    if isinstance(result, LoaderError):
        raise result
    return result


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _born_deaf_to_interrupts() -> Iterator[None]:
    """Processes forked in here have SIGINT blocked, so that one which comes before they can ignore it kills none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
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
