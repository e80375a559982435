"""The whole split on the device, decoded once; an epoch then costs no decoding, and on a GPU hardly any CPU."""

import weakref
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .api import Batch, LoaderOptions, LoadProgress, ResizeMode
from .counter_random import Draws
from .crops import CenterCrop, PadCrop
from .device_resize import Cuts, cut_and_resize
from .epochs import EpochLoader
from .errors import FeedrateError
from .memory_limit import available_memory_bytes
from .plan import Plan, PlanRows
from .records import Records
from .resident_pixels import DecodedRecords, Layout, ResidentPixels, load_pixels
from .stream_spans import spanning
from .transfer import send
from .turbo_loader import TurboLoader

_SHARE_TO_TAKE = 0.8  # of free memory; a fifth stays for all else
_COPIED_BYTES = 192 << 10  # at a time: what a core's own cache holds

# loaders that are open and have not loaded yet: training's and evaluation's must both fit
_waiting: "weakref.WeakSet[ResidentLoader]" = weakref.WeakSet()


class ResidentLoader(EpochLoader):
    """Memory: all pixels of the plan's samples as uint8, from `prepare`, or when the first batch is asked for, until
    `close`.

    Where crops need no resizing (PadCrop, CenterCrop to the samples' own size), all modes give the same bits. Else
    `exact` and `device` give the same bits; on the CPU `device` is computed by tensor operations, which is slower
    there, and `area` is there for the CPU only.
    """

    name = "resident"
    resize_modes: ClassVar[tuple[ResizeMode, ...]] = ("exact", "area", "bicubic", "device")
    reads_records: ClassVar[bool] = False

    def __init__(self, records: Records, plan: Plan, options: LoaderOptions) -> None:
        super().__init__(records, plan, options)
        self._on_cpu = options.device.type == "cpu"
        self._cuts_only = cuts_only(records, plan)
        if self._resize == "area" and not (self._on_cpu or self._cuts_only):
            raise FeedrateError(
                f"loader 'resident' cannot resize in mode 'area' on {options.device.type}, only on the CPU: ask for"
                " 'exact', or use --loader turbo"
            )
        self._layout = _layout(records, plan, options.device)
        self._num_bytes = self._layout.num_bytes()
        self._pixels: ResidentPixels | None = None
        self._copier: _Copier | None = None
        self._turbo: TurboLoader | None = None
        self._augmenting = spanning(self._caller, "augment", options.device)
        _waiting.add(self)
        try:
            self._refuse_unless_it_fits()
        except FeedrateError:
            _waiting.discard(self)
            raise

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        if start == len(self):
            return
        resident = self._loaded()
        if self._turbo is not None:
            batches = self._turbo.epoch(epoch, start)
            try:
                yield from batches
            finally:
                batches.close()
            return
        for index in range(start, len(self)):
            rows = self._rows(epoch, index)
            self._replace_bad(rows, resident)
            with self._augmenting(rows.num_valid):
                images = self._images(rows, resident)
            batch = self._batch(images, rows)
            yield replace(batch, labels=send(batch.labels, self._options.device))

    def _images(self, rows: PlanRows, resident: ResidentPixels) -> torch.Tensor:
        """uint8 [B, S, S, 3] on the device."""
        if self._copier is not None:
            return self._copier(rows)
        ids = rows.ids
        starts, cubic = resident.starts[ids], self._resize == "bicubic"
        return cut_and_resize(
            resident.pixels, Cuts.of(rows, starts, resident.widths[ids], resident.heights[ids], cubic)
        )

    @property
    def augments_in_workers(self) -> bool:  # type: ignore[override]
        """Only where pixels in memory are cut by turbo's threads."""
        return self._turbo is not None

    def num_ready(self) -> int | None:
        return self._turbo.num_ready() if self._turbo is not None else None

    def prepare(self, progress: LoadProgress) -> None:
        """Decode the split now."""
        if self._closed:
            raise FeedrateError(f"loader '{self.name}' is closed: open it again")
        self._loaded(progress)

    def _loaded(self, progress: LoadProgress | None = None) -> ResidentPixels:
        if self._pixels is None:
            self._refuse_unless_it_fits()
            fill = self._plan.view.fill
            self._pixels = load_pixels(self._layout, self._options.device, fill, self._num_workers, progress)
            _waiting.discard(self)
            if self._on_cpu and self._cuts_only:
                self._copier = _Copier(self._pixels, self._plan.view.size_at(0))
            elif self._on_cpu and self._resize != "device":
                # processors resize best one picture at a time
                self._turbo = TurboLoader(
                    DecodedRecords(self._records, self._pixels), self._plan, replace(self._options, resize=self._resize)
                )
        return self._pixels

    def _replace_bad(self, rows: PlanRows, resident: ResidentPixels) -> None:
        """Rows whose sample could not be decoded become errors or others, as `on_bad` says."""

        def deliver(one: PlanRows) -> None:
            error = resident.bad.get(int(one.ids[0]))
            if error is not None:
                raise error

        if resident.bad:
            for row in np.flatnonzero(np.isin(rows.ids, list(resident.bad))).tolist():
                self._or_substitute(rows, row, deliver)

    def _refuse_unless_it_fits(self) -> None:
        others = _waiting_bytes(self._options.device, self)
        if misfit := _misfit(self._num_bytes + sum(others), self._options):
            beside = f" with the {len(others)} opened beside it" if others else ""
            raise FeedrateError(f"loader 'resident'{beside} {misfit}: use --loader turbo, or pack smaller images")

    def close(self) -> None:
        super().close()
        if self._turbo is not None:
            self._turbo.close()
        self._pixels = self._copier = self._turbo = None
        _waiting.discard(self)


def held_bytes(splits: Sequence[tuple[Records, Plan]], device: torch.device) -> int:
    """What loaders over all of these splits would hold on `device`."""
    return sum(_layout(records, plan, device).num_bytes() for records, plan in splits)


def why_not(splits: Sequence[tuple[Records, Plan]], options: LoaderOptions) -> str:
    """Why loaders over all of these splits, opened one beside the other, would be refused; empty if they would not."""
    num_bytes = held_bytes(splits, options.device) + sum(_waiting_bytes(options.device))
    misfit = _misfit(num_bytes, options)
    return f"loader 'resident' {misfit}" if misfit else ""


def _layout(records: Records, plan: Plan, device: torch.device) -> Layout:
    crop = plan.view.crop
    # on the CPU what lies past the border is stored too: then a batch is nothing but copies
    border = crop.padding_px if device.type == "cpu" and isinstance(crop, PadCrop) and cuts_only(records, plan) else 0
    return Layout(records, plan.sampling.pool, border)


def _waiting_bytes(device: torch.device, but: ResidentLoader | None = None) -> list[int]:
    """What each of the others that wait will hold on `device`."""
    return [loader._num_bytes for loader in _waiting if loader is not but and loader._options.device == device]


def _misfit(num_bytes: int, options: LoaderOptions) -> str:
    """What would be wrong with so many bytes on the device; empty if nothing."""
    device = options.device
    # on the CPU every rank holds the split for itself, as if all ranks ran on this machine
    copies = options.shard.world_size if device.type == "cpu" else 1
    needed, free = copies * num_bytes, _free_bytes(device)
    if free is None or needed <= _SHARE_TO_TAKE * free:
        return ""
    ranks = f" on {copies} ranks" if copies > 1 else ""
    return (
        f"takes {needed / 1e9:.2f} GB{ranks}, more than {_SHARE_TO_TAKE:.0%} of the {free / 1e9:.2f} GB of memory free"
        f" ({device.type})"
    )


def _free_bytes(device: torch.device) -> int | None:
    """What can be had on `device` now, with what torch holds there without using it; None where nobody knows."""
    if device.type != "cuda":
        return available_memory_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def cuts_only(records: Records, plan: Plan) -> bool:
    """Whether every rectangle is known to be of the output's size, and every sample of one size."""
    crop, size_px = plan.view.crop, plan.view.size_px
    widths, heights = records.widths, records.heights
    if not (len(records) and isinstance(crop, PadCrop | CenterCrop)):
        return False
    if (widths != widths[0]).any() or (heights != heights[0]).any():
        return False
    # their sides depend on the sample's alone
    one = np.zeros(1, dtype=np.int64)
    rect = crop.rects(one + widths[0], one + heights[0], one, Draws(plan.seed, 0))[0]
    sizes = {size_px} if isinstance(size_px, int) else {size for _, size in size_px}
    return {int(rect[2]), int(rect[3])} == sizes


class _Copier:
    """Cuts and flips pictures in the host's memory whose border is as wide as any rectangle reaches: copies alone.

    Writes to memory that it reuses: fresh memory, which the system first has to clear, takes thrice the time.
    """

    def __init__(self, resident: ResidentPixels, size_px: int) -> None:
        cv2.setNumThreads(1)  # as `Renderer` does; turning a batch over is too little for more
        self._size = size_px
        self._border = resident.border
        self._images = torch.empty(0, dtype=torch.uint8)
        self._rows_at_once = max(1, _COPIED_BYTES // (3 * size_px * size_px))
        width, height = int(resident.widths[0]), int(resident.heights[0])
        self._numbers = resident.starts // (width * height)
        line = 3 * width
        # every place a window can have, as a view; a line of a window is one run of bytes
        self._windows = as_strided(
            resident.pixels.numpy(),
            shape=(int(resident.is_held.sum()), height - size_px + 1, width - size_px + 1, size_px, 3 * size_px),
            strides=(height * line, line, 3, line, 1),
            writeable=False,
        )

    def __call__(self, rows: PlanRows) -> torch.Tensor:
        """uint8 [B, size_px, size_px, 3], valid until the next call."""
        if len(self._images) != len(rows):
            self._images = torch.empty((len(rows), self._size, self._size, 3), dtype=torch.uint8)
        images: NDArray[np.uint8] = self._images.numpy()
        num_valid = rows.num_valid
        numbers = self._numbers[rows.ids]
        left, top = rows.rects[:, 0] + self._border, rows.rects[:, 1] + self._border
        for start in range(0, num_valid, self._rows_at_once):
            part = slice(start, min(start + self._rows_at_once, num_valid))
            some = images[part]
            some.reshape(len(some), self._size, -1)[:] = self._windows[numbers[part], top[part], left[part]]
            flipped = np.flatnonzero(rows.flips[part])
            if len(flipped):
                lines = some[flipped].reshape(-1, self._size, 3)
                some[flipped] = cv2.flip(lines, 1).reshape(-1, self._size, self._size, 3)
        images[num_valid:] = 0
        return self._images
