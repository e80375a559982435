"""How far a long pass is: a bar on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Advance = Callable[[int, int], None]  # (samples done since the last call, bytes they take)


class Phase(Protocol):
    """Shows a part of the work: what is done, samples there are, and samples that an earlier run has done."""

    def __call__(self, label: str, total: int, num_before: int = 0) -> AbstractContextManager[Advance]: ...


_LINE_INTERVAL_S = 10.0


@contextmanager
def silent_phase(label: str, total: int, num_before: int = 0) -> Iterator[Advance]:
    """Nothing is shown."""
    yield lambda num_samples, num_bytes: None


@contextmanager
def shown_phase(label: str, total: int, num_before: int = 0) -> Iterator[Advance]:
    """Samples done, samples and bytes a second, time left; on standard error."""
    if sys.stderr is None or not sys.stderr.isatty():  # None: closed by who started the process
        with _lines(label, total, num_before) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total or None, completed=num_before, speed="")
        yield _bar(progress, task, num_before)


def _bar(progress: Progress, task: TaskID, num_before: int) -> Advance:
    meter = _Meter()

    def advance(num_samples: int, num_bytes: int) -> None:
        meter.add(num_samples, num_bytes)
        progress.update(task, completed=num_before + meter.num_samples, speed=meter.speed())

    return advance


@contextmanager
def _lines(label: str, total: int, num_before: int) -> Iterator[Advance]:
    meter, last_line_s = _Meter(), time.monotonic()

    def advance(num_samples: int, num_bytes: int) -> None:
        nonlocal last_line_s
        meter.add(num_samples, num_bytes)
        if time.monotonic() - last_line_s >= _LINE_INTERVAL_S:
            last_line_s = time.monotonic()
            num_done = num_before + meter.num_samples
            left_s = (total - num_done) * meter.seconds() / max(1, meter.num_samples)
            goal = f" of {total:,}, {meter.speed()}, about {left_s:,.0f} s left" if total else f", {meter.speed()}"
            line = f"{label}: {num_done:,}{goal}"
            print(line, file=sys.stderr, flush=True)

    yield advance


class _Meter:
    def __init__(self) -> None:
        self.num_samples = 0
        self._num_bytes = 0
        self._start_s = time.monotonic()

    def add(self, num_samples: int, num_bytes: int) -> None:
        self.num_samples += num_samples
        self._num_bytes += num_bytes

    def seconds(self) -> float:
        return max(time.monotonic() - self._start_s, 1e-9)

    def speed(self) -> str:
        rate = f"{self.num_samples / self.seconds():,.0f} img/s"
        return f"{rate}, {self._num_bytes / 1e6 / self.seconds():,.0f} MB/s" if self._num_bytes else rate
