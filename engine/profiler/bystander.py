"""What other programs do to the processors that this one may use."""

import contextlib
import os
import platform
import time

import psutil

from loaders.cpus import available_cpus

from ..dist import Ranks

_IDLE = ("idle", "iowait")


class Bystander:
    """Looks on from its making on; every rank has one."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._own_s = _own_s()
        self._busy_s = _busy_s()
        self._started = time.perf_counter()

    def others_cpus(self) -> float | None:
        """Processors that others used since, on average, of the machine where that is most: the same answer on all
        ranks, who must all ask.

        What a hypervisor took counts too. None where the counters of no machine can be read.
        """
        seconds = max(1e-9, time.perf_counter() - self._started)
        busy_s = _busy_s()
        host = platform.node()
        own_s = sum(own_s for node, own_s in self._ranks.gather((host, _own_s() - self._own_s)) if node == host)
        is_seen = busy_s is not None and self._busy_s is not None
        others = ((busy_s or 0.0) - (self._busy_s or 0.0) - own_s) / seconds if is_seen else None
        known = [used for used in self._ranks.gather(others) if used is not None]
        return max(0.0, *known) if known else None

    def taken_cpus(self) -> float | None:
        """The same, without what others may have used beside all that affinity and cgroup grant this program."""
        others = self.others_cpus()
        beside = max(0, len(os.sched_getaffinity(0)) - available_cpus()) if others is not None else 0
        return None if others is None else max(0.0, others - beside)


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
