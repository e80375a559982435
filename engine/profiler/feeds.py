"""Where the batches of experiments come from: the configured loader with any number of workers, or memory."""

import itertools
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from loaders.api import Batch, Loader, LoaderOptions
from loaders.choose import open_loader
from loaders.plan import Plan
from loaders.records import Records
from loaders.stage_times import StageTimes
from loaders.transfer import to_device

from .stored_batches import StoredBatches


@dataclass(frozen=True)
class Source:
    """What the configured loader is opened with, any number of times."""

    name: str
    records: Records
    plan: Plan
    options: LoaderOptions


class RealFeed:
    """The configured loader, one open at a time, over the same batches in every turn: the first of epoch 0 where
    they shall be in the page cache (warm), the last where they shall not (cold).

    workers, loader, stage_times  of the one that is open
    first_batch_s  how long the first batch of each epoch took that the newest turn began
    not_fed        why a step that is fed from page-locked memory is not what this loader does; "": it is
    alone_on       where its batches go while nobody trains on them: what copies them whole to a device is no part of
                   the loader, and would hide how fast it is; else as in training
    """

    def __init__(self, source: Source, stored: StoredBatches) -> None:
        self._source = source
        self._stored = stored
        self.first_batch_s: list[float] = []
        self._pins = False  # whether it copies batches into page-locked memory first, which is its own work
        self.workers = source.options.num_workers or 1
        self.stage_times = StageTimes(self.workers + 1)
        self.open(self.workers)
        self.not_fed = self._why_not_fed()
        self.alone_on = source.options.device if self.not_fed else torch.device("cpu")

    @property
    def reads_files(self) -> bool:
        """Whether an epoch reads files; else there is no cold one."""
        return self._stored.are_files and bool(getattr(self.loader, "reads_records", True))

    @property
    def has_workers(self) -> bool:
        """Whether their number matters: not where epochs are made of what is in memory anyway."""
        return bool(getattr(self.loader, "reads_records", True))

    @property
    def resizes_on_device(self) -> bool:
        """Whether other pixels are copied there than batches consist of."""
        return self._source.options.resize == "device"

    def burst(self, workers: int) -> int:
        """Batches that so many workers hand out at about the same time: those that make one each do, and a loader that
        does not say may."""
        return workers if getattr(self.loader, "collates_in_workers", True) else 1

    def open(self, workers: int, device: torch.device | None = None) -> None:
        """Have the loader open with so many workers, and no other. Its batches go to `device`, None: as in training."""
        self.close()
        self.workers = workers
        self.device = device or self._source.options.device
        if self.stage_times.num_writers != workers + 1:  # else the same, with the delays that were planted there
            self.stage_times = StageTimes(workers + 1)
        options = replace(self._source.options, num_workers=workers, device=self.device, stage_times=self.stage_times)
        self.loader = open_loader(self._source.name, self._source.records, self._source.plan, options)

    def warm(self, workers: int, num_batches: int, device: torch.device | None = None) -> Generator[Batch]:
        """So many batches; from the first one again where an epoch, or what memory holds, has not so many."""
        device = device or self._source.options.device
        if (workers, device) != (self.workers, self.device):
            self.open(workers, device)
        self.first_batch_s = []
        window = self._stored.keep(num_batches) if self.reads_files else len(self.loader)
        while num_batches > 0:
            taken = min(num_batches, window)
            yield from self._from(0, taken)
            num_batches -= taken

    def cold(self, workers: int, num_batches: int, device: torch.device | None = None) -> Generator[Batch]:
        """So many batches, whose bytes are dropped from the page cache before."""
        self.close()  # it may have mapped the files itself, and what is mapped stays
        stop = self._stored.num_batches
        start = max(0, stop - num_batches)
        self._stored.drop(range(start, stop))
        self.open(workers, device)
        self.first_batch_s = []
        yield from self._from(start, stop - start)

    def close(self) -> None:
        """Close the loader that is open. Idempotent."""
        loader = getattr(self, "loader", None)
        if loader is not None:
            loader.close()

    def _why_not_fed(self) -> str:
        """Found out by a batch, where what was noted of it tells."""
        options, name = self._source.options, self._source.name
        if options.device.type == "cpu":
            return "a CPU is not fed from page-locked memory"
        if not self.has_workers:
            return f"loader '{name}' makes its batches where they are used, and copies none from the host"
        if options.resize == "device":
            return "what is resized on the device is not copied there as whole batches"
        list(self._from(0, 1))
        seen = self.stage_times.read()
        if "copy" not in seen:
            return f"loader '{name}' copies no whole batches from the host, or does not show it"
        self._pins = "pin" in seen
        return ""

    def _from(self, start: int, count: int) -> Iterator[Batch]:
        asked = time.perf_counter()
        with closing(self.loader.epoch(0, start)) as batches:
            stays_on_the_host = self._pins and self.device != self._source.options.device
            taken: Iterator[Batch] = _staged(batches) if stays_on_the_host else batches
            for number, batch in enumerate(itertools.islice(taken, count)):
                if number == 0:
                    self.first_batch_s.append(time.perf_counter() - asked)
                yield batch


def on_the_device(synthetic: Loader, num_batches: int) -> Generator[Batch]:
    """Batches of a synthetic loader, whose pixels stay where they are: at no cost."""
    left = num_batches
    while left > 0:
        with closing(synthetic.epoch(0)) as batches:
            yield from itertools.islice(batches, left)
        left -= len(synthetic)


def fed_from_the_host(synthetic: Loader, device: torch.device, num_batches: int) -> Generator[Batch]:
    """Batches of a synthetic loader on the host, copied from page-locked memory as those of a real one are."""
    return to_device(_page_locked(synthetic, num_batches), device)


def _page_locked(synthetic: Loader, num_batches: int) -> Generator[Batch]:
    pinned: torch.Tensor | None = None
    for batch in on_the_device(synthetic, num_batches):
        if pinned is None or pinned.shape != batch.images.shape:
            pinned = _page_locked_like(batch.images).copy_(batch.images)
        yield replace(batch, images=pinned)


def _staged(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same on the host, each copied into page-locked memory as it would be on its way to a device."""
    slab: torch.Tensor | None = None
    for batch in batches:
        if slab is None or slab.shape != batch.images.shape:
            slab = _page_locked_like(batch.images)
        yield replace(batch, images=slab.copy_(batch.images))


def _page_locked_like(images: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(images, pin_memory=True)
