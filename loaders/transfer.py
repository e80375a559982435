"""Host to device, in one place."""

import functools
from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

import torch

from .api import Batch
from .stage_writer import UNTIMED, StageWriter
from .stream_spans import StreamSpans

SomeBatch = TypeVar("SomeBatch", bound=Batch)


def send(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host's on `device`; to CUDA by a copy on the current stream that the host does not wait for.

    Were it copied out of pageable memory, the driver might first wait for all that the stream was given before, such as
    a whole training step. `host` may be changed or given up at once, unless it is page-locked already.
    """
    # torch keeps pinned memory until the copy out of it is done
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def to_device(
    batches: Generator[SomeBatch], device: torch.device, times: StageWriter = UNTIMED
) -> Generator[SomeBatch]:
    """The same batches on `device`; closing the result closes `batches`.

    times  notes stages "pin", where batches do not lie in page-locked memory already, and "copy"; on the CPU neither is

    A batch taken from `batches` may be overwritten once the next one is asked for. On the CPU batches are handed
    through as they are; on CUDA they are copied one batch ahead, beside the computation.
    """
    if device.type == "cpu":
        return batches
    return _copied_ahead(batches, device, times) if device.type == "cuda" else _copied(batches, device, times)


def _copied(batches: Generator[SomeBatch], device: torch.device, times: StageWriter) -> Generator[SomeBatch]:
    """For devices without side streams: a plain copy that has ended when the batch is handed out."""
    try:
        for host in batches:
            with times.stage("copy", host.num_valid):
                batch = replace(host, images=host.images.to(device), labels=host.labels.to(device))
            yield batch
    finally:
        batches.close()


def _copied_ahead(batches: Generator[SomeBatch], device: torch.device, times: StageWriter) -> Generator[SomeBatch]:
    """Hand out batch k while batch k + 1 is copied on a stream of its own; but the first at once: training on it need
    not wait until the second is made.

    Who owns which memory, and until when:

    * The host's pixels belong to `batches` and stay as they are until it is asked for the next batch. So before asking
      we wait on the host for the copy from them. That copy was started a whole training step ago (of the second batch
      just now) on a stream that waits for nothing else: this does not wait for the computation.
    * The device's tensors are allocated on, and so belong to, the copying stream. The consumer's stream waits for
      the copy's event before it may read them; `record_stream` tells the allocator not to give the memory to a later
      copy before that stream's work, as submitted when the tensor is dropped, has ended.
    """
    copying = _copying_stream(device)
    copies = StreamSpans(times, "copy", device)
    staging = _Staging(times)
    newest: tuple[SomeBatch, torch.cuda.Event] | None = None
    ahead, is_first = None, True
    try:
        while True:
            if newest:
                newest[1].synchronize()  # from here on `batches` and `staging` may overwrite what was copied
                copies.collect()
            host, failure = _next_or_failure(batches)
            newest = None if host is None else _start_copy(host, staging, copying, copies)
            due, ahead = (newest, None) if is_first else (ahead, newest)
            is_first = False
            if due is not None:
                yield _ready(*due, device)
            del due  # what the consumer gives up is given up; the first when the second's copy has started
            if failure is not None:
                raise failure
            if host is None:
                return
    finally:
        if newest:
            newest[1].synchronize()  # the copy still reads the slab that closing `batches` gives up
            copies.collect()  # also of a single batch
        batches.close()


def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return _stream_of(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _stream_of(index: int) -> torch.cuda.Stream:
    """One for all loaders and epochs: memory goes back to the stream that had it, so every new one would keep some."""
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


def _next_or_failure(batches: Generator[SomeBatch]) -> tuple[SomeBatch | None, Exception | None]:
    """An error waits for the batch before it to be handed out: it belongs to the one after."""
    try:
        return next(batches, None), None
    except Exception as error:
        return None, error


def _start_copy(
    host: SomeBatch, staging: "_Staging", copying: torch.cuda.Stream, copies: StreamSpans
) -> tuple[SomeBatch, torch.cuda.Event]:
    device = copying.device
    images = host.images if host.images.is_pinned() else staging.pinned_copy(host.images, host.num_valid)
    with torch.cuda.stream(copying), copies.span(host.num_valid):
        batch = replace(host, images=images.to(device, non_blocking=True), labels=send(host.labels, device))
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(copying)
    return batch, copied


def _ready(batch: SomeBatch, copied: torch.cuda.Event, device: torch.device) -> SomeBatch:
    """The batch, once the stream of whoever asks for it has been told to wait for its copy."""
    consumer = torch.cuda.current_stream(device)
    consumer.wait_event(copied)
    for tensor in (batch.images, batch.labels):
        tensor.record_stream(consumer)
    return batch


class _Staging:
    """Page-locked memory for loaders without any of their own. One slab is enough: see who waits for the copy above."""

    def __init__(self, times: StageWriter) -> None:
        self._times = times
        self._slab: torch.Tensor | None = None

    def pinned_copy(self, images: torch.Tensor, num_valid: int) -> torch.Tensor:
        with self._times.stage("pin", num_valid):
            if self._slab is None or self._slab.shape != images.shape:
                self._slab = torch.empty_like(images, pin_memory=True)  # keeps channels-last strides
            return self._slab.copy_(images)
