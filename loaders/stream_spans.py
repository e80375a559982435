"""Stages that a CUDA device goes through later than it is asked to: timed by events that nobody waits for."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple

import torch

from .stage_writer import UNTIMED, StageWriter

_CALIBRATING_CYCLES = 20_000_000


def spanning(times: StageWriter, stage: str, device: torch.device) -> Callable[[int], AbstractContextManager[object]]:
    """`with spanning(…)(images):` around work on `device`: timed by events on CUDA, by the clock on a CPU.

    Not at all on other devices: there nobody sees when it is done.
    """
    if device.type == "cuda":
        return StreamSpans(times, stage).span
    return partial((times if device.type == "cpu" else UNTIMED).stage, stage)


class _Work(NamedTuple):
    begun: torch.cuda.Event
    ended: torch.cuda.Event
    images: int
    cpu_ns: int


class StreamSpans:
    """One stage's. Wall time is the device's, processor time what it takes the host to ask for it.

    A delay of either kind keeps the device's stream busy, and no processor.
    """

    def __init__(self, times: StageWriter, stage: str) -> None:
        self._times = times
        self._stage = stage
        self._under_way: deque[_Work] = deque()
        self._cycles_per_s: float | None = None

    @contextmanager
    def span(self, images: int) -> Iterator[None]:
        """What the current stream is given inside takes `images` images through the stage; see `StageWriter.stage`."""
        if not self._times.is_on:
            yield
            return
        self.collect()
        begun_cpu_ns = time.thread_time_ns()
        delay_ns = self._times.stage(self._stage, images).delay_ns
        cycles = self._cycles(abs(delay_ns) * images / 1e9) if delay_ns and images else 0
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begun.record(torch.cuda.current_stream())
        if cycles:
            torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
        yield
        ended.record(torch.cuda.current_stream())
        self._under_way.append(_Work(begun, ended, images, time.thread_time_ns() - begun_cpu_ns))

    def collect(self) -> None:
        """Note what is over by now."""
        while self._under_way and self._under_way[0].ended.query():  # type: ignore[no-untyped-call]
            work = self._under_way.popleft()
            wall_ns = round(1e6 * work.begun.elapsed_time(work.ended))
            self._times.stage(self._stage).record(work.images, wall_ns, work.cpu_ns)

    def _cycles(self, seconds: float) -> int:
        """Of the device's clock, which is measured when the first delay is asked for."""
        if self._cycles_per_s is None:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begun.record(torch.cuda.current_stream())
            torch.cuda._sleep(_CALIBRATING_CYCLES)  # type: ignore[no-untyped-call]
            ended.record(torch.cuda.current_stream())
            ended.synchronize()
            self._cycles_per_s = 1e3 * _CALIBRATING_CYCLES / begun.elapsed_time(ended)
        return int(seconds * self._cycles_per_s)
