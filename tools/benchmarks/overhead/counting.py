"""What each thing that the profiler does in a run costs by itself: far below the noise of a training step."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import torch

from engine.profiler.data_bound import DataBoundWatch
from engine.profiler.meter import Meter
from engine.profiler.record import CLOCKED_STAGES
from engine.profiler.resources import ResourceMeter
from engine.profiler.step_clock import HostClock, StepClock, step_clock
from engine.profiler.time_book import TimeBook
from loaders.api import Batch, Loader
from loaders.stage_times import StageTimes

_CALLS = 2_000
_REPEATS = 21


def count_costs(timed: Loader, bare: Loader, pairs: int, device: str) -> dict[str, Any]:
    """Microseconds of processor time: of a span of the step, of a batch's turn at the meter, of a line of the log, of
    an epoch's own reading; and an image of the loader alone, of each pair of epochs what it took longer."""
    epochs = [_loading_us(loader, index) for index in range(2 * pairs + 2) for loader in _pair(timed, bare, index)]
    del epochs[:4]  # they warm up
    extra_us = []
    for index in range(len(epochs) // 2):
        first, second = epochs[2 * index : 2 * index + 2]
        extra_us.append(first - second if index % 2 == 0 else second - first)
    return {
        "span_us": _span_us(step_clock(device)),
        "batch_us": _batch_us(),
        "line_us": _line_us(),
        "epoch_us": _once_us(lambda: ResourceMeter(torch.device(device)).read(), 20),
        "loader_us": extra_us,
    }


def _pair(timed: Loader, bare: Loader, index: int) -> tuple[Loader, Loader]:
    return (timed, bare) if index % 2 == 0 else (bare, timed)


def _loading_us(loader: Loader, index: int) -> float:
    """Processor time an image of an epoch."""
    started, num_images = time.process_time(), 0
    with closing(loader.epoch(index)) as batches:
        for batch in batches:
            num_images += batch.num_valid
    return 1e6 * (time.process_time() - started) / num_images


def _span_us(clock: StepClock) -> float:
    """All of one, entering and leaving the block too."""

    def call() -> None:
        with clock.span("forward"):
            pass

    return _once_us(call, _CALLS)


def _batch_us() -> float:
    """What taking a batch through the meter adds."""
    batch = Batch(torch.zeros(1, 3, 1, 1), torch.zeros(1), torch.zeros(1), 1)

    def stream() -> Iterator[Batch]:
        for _ in range(_CALLS):
            yield batch

    def taken(through: Callable[[Iterator[Batch]], Iterator[Batch]]) -> float:
        return _once_us(lambda: [None for _ in through(stream())], 1) / _CALLS

    return taken(Meter(lambda: 0.0).timed) - taken(lambda batches: batches)


def _line_us() -> float:
    """What a line of the log reads, beside writing it: it is written without a profiler, too."""
    clock, times = HostClock(), StageTimes(3)
    for stage in CLOCKED_STAGES:
        with clock.span(stage):
            pass
    for number in range(3):
        with times.writer(number).stage("decode"):
            pass
    meter, book, watch = Meter(clock.total_s), TimeBook(lambda: clock, times), DataBoundWatch()
    last = meter.read()

    def line() -> None:
        watch.note(meter.read().since(last), book.loader_s())

    return _once_us(line, _CALLS)


def _once_us(call: Callable[[], Any], calls: int) -> float:
    """The median of some repeats, which a busy machine disturbs least."""
    found = []
    for _ in range(_REPEATS):
        started = time.thread_time()
        for _ in range(calls):
            call()
        found.append(1e6 * (time.thread_time() - started) / calls)
    return statistics.median(found)
