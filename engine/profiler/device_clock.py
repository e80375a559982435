"""How long the device works on something, the first time apart from the rest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch


class DeviceClock(Protocol):
    """Times spans of work in order, without making the host wait until it is read."""

    @contextmanager
    def span(self) -> Iterator[None]:
        """Time what is given to the device within the block."""
        ...

    def seconds(self) -> list[float]:
        """Of every span so far, in order. Waits for the device."""
        ...


class HostSpans:
    """Of a CPU, where work is done when the call returns."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    @contextmanager
    def span(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds.append(time.perf_counter() - started)

    def seconds(self) -> list[float]:
        return list(self._seconds)


class CudaSpans:
    """By events in the current stream of a GPU."""

    def __init__(self) -> None:
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def span(self) -> Iterator[None]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        yield
        end.record()
        self._spans.append((start, end))

    def seconds(self) -> list[float]:
        if self._spans:
            self._spans[-1][1].synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in self._spans]


def device_clock(device: torch.device) -> DeviceClock:
    """The clock for this device."""
    return CudaSpans() if device.type == "cuda" else HostSpans()
