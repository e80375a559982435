"""Streams and events of a GPU in name: delays take their time, and copies come as late as they may."""

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
_CYCLES_PER_S = 2e9
entered: list[Any] = []  # the GPUs in name that there are, each within the one before
# kept by whoever keeps one of torch's: loaders have one for all epochs
_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """What it was given and is not done. Of all but copies and delays that is nothing: they are done when asked for."""

    device = GPU

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.busy_until_s = 0.0  # by `time.perf_counter`
        self._copies: list[Callable[[], object]] = []
        self._num_copied = 0
        _streams.add(self)

    def delay(self, cycles: int) -> None:
        self.busy_until_s = max(self.busy_until_s, time.perf_counter()) + cycles / _CYCLES_PER_S

    def copy_later(self, copy: Callable[[], object]) -> None:
        """Until somebody waits for it, or the stream goes on to something else."""
        self._copies.append(copy)

    def copy_until(self, number: int) -> None:
        while self._copies and self._num_copied < number:
            with torch._C.DisableTorchFunction():
                self._copies.pop(0)()
            self._num_copied += 1

    def num_asked(self) -> int:
        """Copies that it was given so far, done or not."""
        return self._num_copied + len(self._copies)

    def has_copied(self, number: int) -> bool:
        return self._num_copied >= number

    def wait_event(self, event: "Event") -> None:
        """The host does not wait."""
        self.busy_until_s = max(self.busy_until_s, event.due_s)
        event.let_copy()

    def wait_stream(self, other: "Stream") -> None:
        self.wait_event(other.record_event())

    def record_event(self) -> "Event":
        event = Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        entered[-1].waits("Stream.synchronize")
        self.record_event().synchronize()

    def is_capturing(self) -> bool:
        return False


class Event:
    """A place in a stream, and when that will have come so far. Before it is recorded it is over."""

    waited_until_s = 0.0  # of all of them, by the host

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._stream: Stream | None = None
        self._number, self.due_s = 0, 0.0
        self._is_timed = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        self._stream = stream or torch.cuda.current_stream()
        self._number = self._stream.num_asked()
        self.due_s = max(time.perf_counter(), self._stream.busy_until_s)

    def let_copy(self) -> None:
        if self._stream is not None:
            self._stream.copy_until(self._number)

    def is_waited_for(self) -> bool:
        """Whether the host has waited until it was over: what it took long for otherwise does not count."""
        return Event.waited_until_s >= self.due_s

    def synchronize(self) -> None:
        self.let_copy()
        Event.waited_until_s = max(Event.waited_until_s, self.due_s)
        time.sleep(max(0.0, self.due_s - time.perf_counter()))

    def query(self) -> bool:
        return (self._stream is None or self._stream.has_copied(self._number)) and time.perf_counter() >= self.due_s

    def elapsed_time(self, later: "Event") -> float:
        are_timed = all(event._is_timed and event._stream is not None for event in (self, later))
        assert are_timed, "torch refuses times of events that are not recorded, or were made without enable_timing"
        assert self.query() and later.query(), "torch refuses times of what is not done yet"
        return 1e3 * (later.due_s - self.due_s)


def synchronize_all() -> None:
    for stream in list(_streams):
        stream.record_event().synchronize()  # of which torch's debug mode says nothing
