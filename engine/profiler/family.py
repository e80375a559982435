"""What this process and those it started use over a span of time: processors, memory, storage, the GPU."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .gpu_use import GpuUse, gpu_handle, gpu_power_w
from .record import ProcessRecord

_SHOWN = 64  # processes of a family that are told one by one, those with the most processor time


@dataclass(frozen=True)
class Used:
    """Over a span of time. None is what cannot be read here.

    cpu_s        processor time;  read_bytes  from storage: what the page cache had does not count
    reads        calls that read, from wherever
    gpu_share    NVML's utilisation: the share of time in which a kernel ran, 0-1, mean of its samples
    """

    seconds: float
    cpu_s: float
    memory_bytes: int
    shared_bytes: int | None
    read_bytes: int | None
    reads: int | None
    gpu_share: float | None
    gpu_power_w: float | None
    processes: tuple[ProcessRecord, ...]


@dataclass(frozen=True)
class _Seen:
    """Of one process, since it began."""

    cpu_s: float
    read_bytes: int | None
    reads: int | None


class Family:
    """This process and all below it."""

    def __init__(self, device: torch.device, proc: Path = Path("/proc")) -> None:
        self._gpu = gpu_handle(device)
        self._proc = proc
        self._own = psutil.Process()
        self._gpu_shares: list[float] = []

    def begin(self) -> None:
        """The span begins."""
        self._before = {process.pid: self._seen(process) for process in self._members()}
        self._gpu_use, self._gpu_shares = GpuUse(self._gpu), []
        self._started = time.perf_counter()

    def sample(self) -> None:
        """Note the GPU's use since it was noted last, in a span that is longer than NVML remembers."""
        self._gpu_shares += self._gpu_use.shares()

    def end(self) -> Used:
        """The span ends, or goes on to another end. Processes that ended within it are not seen, those that began are
        from their start.
        """
        seconds = max(1e-9, time.perf_counter() - self._started)
        self.sample()
        nobody = _Seen(0.0, 0, 0)
        records, changes = [], []
        for process in self._members():
            with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                change = _change(self._before.get(process.pid, nobody), self._seen(process))
                records.append(self._record(process, change, seconds))
                changes.append(change)
        records.sort(key=lambda record: -record.cpus)
        return Used(
            seconds,
            sum(change.cpu_s for change in changes),
            sum(record.pss_bytes if record.pss_bytes is not None else record.rss_bytes for record in records),
            _sum([record.shared_bytes for record in records]),
            _sum([change.read_bytes for change in changes]),
            _sum([change.reads for change in changes]),
            sum(self._gpu_shares) / len(self._gpu_shares) if self._gpu_shares else None,
            gpu_power_w(self._gpu),
            tuple(records[:_SHOWN]),
        )

    def _members(self) -> list[psutil.Process]:
        return [self._own, *self._own.children(recursive=True)]

    def _seen(self, process: psutil.Process) -> _Seen:
        try:
            times = process.cpu_times()
        except psutil.Error:
            return _Seen(0.0, None, None)
        counters = _numbers(self._proc / str(process.pid) / "io")
        return _Seen(times.user + times.system, counters.get("read_bytes"), counters.get("syscr"))

    def _record(self, process: psutil.Process, change: _Seen, seconds: float) -> ProcessRecord:
        memory = process.memory_info()
        parts = _numbers(self._proc / str(process.pid) / "smaps_rollup")
        return ProcessRecord(
            process.pid,
            process.name(),
            change.cpu_s / seconds,
            memory.rss,
            1024 * parts["Pss"] if "Pss" in parts else None,
            1024 * parts["Pss_Shmem"] if "Pss_Shmem" in parts else None,
            None if change.read_bytes is None else change.read_bytes / seconds / 1e6,
            None if change.reads is None else change.reads / seconds,
        )


def _change(before: _Seen, now: _Seen) -> _Seen:
    def less(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a - b

    return _Seen(now.cpu_s - before.cpu_s, less(now.read_bytes, before.read_bytes), less(now.reads, before.reads))


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _numbers(path: Path) -> dict[str, int]:
    """The lines "name: number …" of a file of /proc; {} where it cannot be read."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(":")
            first = rest.split()[:1]
            if first and first[0].isdigit():
                found[name] = int(first[0])
    return found
