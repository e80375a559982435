"""Stages that a CUDA device goes through later than it is asked to: timed by events that nobody waits for."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from typing import NamedTuple

import torch

from .stage_writer import UNTIMED, StageWriter

_CALIBRATION_CYCLES = 20_000_000  # about a hundredth of a second
_CALIBRATIONS = 5


def spanning(times: StageWriter, stage: str, device: torch.device) -> Callable[[int], AbstractContextManager[object]]:
    """`with spanning(…)(images):` around work on `device`: timed by events on CUDA, by the clock on a CPU.

    Not at all on other devices: there nobody sees when it is done.
    """
    if device.type == "cuda":
        return StreamSpans(times, stage, device).span
    return partial((times if device.type == "cpu" else UNTIMED).stage, stage)


class _Work(NamedTuple):
    begun: torch.cuda.Event
    ended: torch.cuda.Event
    images: int
    cpu_ns: int


@cache
def cycles_per_s(device: torch.device) -> float:
    """How fast a GPU counts in `torch.cuda._sleep`: found out once, at the clock it has after some warming up."""
    found = 0.0
    with torch.cuda.device(device):
        for _ in range(_CALIBRATIONS):
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begun.record(torch.cuda.current_stream(device))
            torch.cuda._sleep(_CALIBRATION_CYCLES)  # type: ignore[no-untyped-call]
            ended.record(torch.cuda.current_stream(device))
            ended.synchronize()
            found = 1e3 * _CALIBRATION_CYCLES / begun.elapsed_time(ended)
    return found


def cycles_for(seconds: float, rate: float) -> int:
    """What to ask `torch.cuda._sleep` for, which counts to `rate` in a second."""
    return max(1, round(seconds * rate))


class StreamSpans:
    """One stage's, of the stream that is the current one of `device`. Wall time is the device's, processor time what it
    takes the host to ask for it.

    A delay of either kind keeps that stream busy, and no processor.
    """

    def __init__(self, times: StageWriter, stage: str, device: torch.device) -> None:
        self._times = times
        self._stage = stage
        self._device = device
        self._under_way: deque[_Work] = deque()

    @contextmanager
    def span(self, images: int) -> Iterator[None]:
        """What the current stream is given inside takes `images` images through the stage; see `StageWriter.stage`."""
        if not self._times.is_on:
            yield
            return
        self.collect()
        begun_cpu_ns = time.thread_time_ns()
        delay_ns = self._times.stage(self._stage, images).delay_ns
        delay_s = abs(delay_ns) * images / 1e9
        cycles = cycles_for(delay_s, cycles_per_s(self._device)) if delay_s else 0
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begun.record(torch.cuda.current_stream(self._device))
        if cycles:
            with torch.cuda.device(self._device):
                torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
        yield
        ended.record(torch.cuda.current_stream(self._device))
        self._under_way.append(_Work(begun, ended, images, time.thread_time_ns() - begun_cpu_ns))

    def collect(self) -> None:
        """Note what is over by now."""
        while self._under_way and self._under_way[0].ended.query():  # type: ignore[no-untyped-call]
            work = self._under_way.popleft()
            wall_ns = round(1e6 * work.begun.elapsed_time(work.ended))
            self._times.stage(self._stage).record(work.images, wall_ns, work.cpu_ns)
