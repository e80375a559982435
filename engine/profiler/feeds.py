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
    first_batch_s  how long the first batch of each warm turn took
    """

    def __init__(self, source: Source, stored: StoredBatches) -> None:
        self._source = source
        self._stored = stored
        self.open(source.options.num_workers or 1)
        self.first_batch_s: list[float] = []

    @property
    def reads_files(self) -> bool:
        """Whether an epoch reads files; else there is no cold one."""
        return self._stored.are_files and bool(getattr(self.loader, "reads_records", True))

    @property
    def has_workers(self) -> bool:
        """Whether their number matters: not where epochs are made of what is in memory anyway."""
        return bool(getattr(self.loader, "reads_records", True))

    def open(self, workers: int) -> None:
        """Have the loader open with so many workers, and no other."""
        self.close()
        self.workers = workers
        self.stage_times = StageTimes(workers + 1)
        options = replace(self._source.options, num_workers=workers, stage_times=self.stage_times)
        self.loader = open_loader(self._source.name, self._source.records, self._source.plan, options)

    def warm(self, workers: int, num_batches: int) -> Generator[Batch]:
        """So many batches; from the first one again where an epoch, or what memory holds, has not so many."""
        if workers != self.workers:
            self.open(workers)
        window = self._stored.keep(num_batches) if self.reads_files else len(self.loader)
        while num_batches > 0:
            taken = min(num_batches, window)
            yield from self._from(0, taken, self.first_batch_s)
            num_batches -= taken

    def cold(self, workers: int, num_batches: int) -> Generator[Batch]:
        """So many batches, whose bytes are dropped from the page cache before."""
        self.close()  # it may have mapped the files itself, and what is mapped stays
        stop = self._stored.num_batches
        start = max(0, stop - num_batches)
        self._stored.drop(range(start, stop))
        self.open(workers)
        yield from self._from(start, stop - start, [])

    def close(self) -> None:
        """Close the loader that is open. Idempotent."""
        loader = getattr(self, "loader", None)
        if loader is not None:
            loader.close()

    def _from(self, start: int, count: int, first_batch_s: list[float]) -> Iterator[Batch]:
        asked = time.perf_counter()
        with closing(self.loader.epoch(0, start)) as batches:
            for number, batch in enumerate(itertools.islice(batches, count)):
                if number == 0:
                    first_batch_s.append(time.perf_counter() - asked)
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
            pinned = torch.empty_like(batch.images, pin_memory=True).copy_(batch.images)
        yield replace(batch, images=pinned)
