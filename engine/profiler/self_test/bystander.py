"""What other programs do to the processors that this one may use."""

import contextlib
import os
import time

import psutil

from ...dist import Ranks

_IDLE = ("idle", "iowait")


class Bystander:
    """Looks on from its making on; every rank has one."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._own_s = _own_s()
        self._busy_s = _busy_s()
        self._started = time.perf_counter()

    def others_cpus(self) -> float:
        """Processors that others used since, on average: the same answer on all ranks, who must all ask.

        What a hypervisor took counts too. Where this machine's counters cannot be read it is 0.
        """
        seconds = max(1e-9, time.perf_counter() - self._started)
        busy_s = _busy_s()
        own_s = sum(self._ranks.gather(_own_s() - self._own_s))
        if busy_s is None or self._busy_s is None:
            return 0.0
        (most,) = self._ranks.largest([(busy_s - self._busy_s - own_s) / seconds])
        return max(0.0, most)


def _own_s() -> float:
    """Processor time of this process and all it started so far, as far as they are waited for or still there."""
    own = psutil.Process()
    times = own.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            of_child = child.cpu_times()
            total += of_child.user + of_child.system
    return total


def _busy_s() -> float | None:
    """Time that the processors this process may use were not idle."""
    try:
        allowed = os.sched_getaffinity(0)
        all_times = psutil.cpu_times(percpu=True)
    except (AttributeError, OSError):
        return None
    busy_s = 0.0
    for number, times in enumerate(all_times):
        if number in allowed:
            # time of guests is part of the user's already
            taken = times._asdict().items()
            busy_s += sum(seconds for name, seconds in taken if name not in _IDLE and not name.startswith("guest"))
    return busy_s
