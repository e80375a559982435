"""How much memory a process and all it started took at most."""

import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_INTERVAL_S = 0.05


@dataclass
class Peaks:
    """The largest sums seen, in bytes.

    parent_rss  resident memory of the process itself
    tree_rss    the sum over all processes: a page shared by two counts twice
    tree_pss    the same, a shared page split among those that share it; 0 where the system does not tell
    tree_held   of tree_pss all but mapped files, which the system may drop; its peak may be at another time
    """

    parent_rss: int = 0
    tree_rss: int = 0
    tree_pss: int = 0
    tree_held: int = 0
    num_processes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Plain data, for JSON."""
        return {f"peak_{name}": value for name, value in asdict(self).items()}


class MemoryWatch:
    """Looks at a process tree every 50 ms, in a thread, until stopped.

    Looking takes some 13 ms a process that has torch in it, since the kernel walks all its pages: a run that is watched
    is not timed.
    """

    def __init__(self, pid: int) -> None:
        self.peaks = Peaks()
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> Peaks:
        """End looking; the peaks so far."""
        self._stop.set()
        self._thread.join()
        return self.peaks

    def _watch(self) -> None:
        try:
            parent = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            return
        while not self._stop.is_set():
            try:
                self._look(parent)
            except psutil.NoSuchProcess:  # the parent has ended
                return
            self._stop.wait(_INTERVAL_S)

    def _look(self, parent: psutil.Process) -> None:
        family = [parent, *parent.children(recursive=True)]
        rss, pss, held = [], 0, 0
        for member in family:
            try:
                rss.append(member.memory_info().rss)
                shares = _shares(member.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                if member is parent:
                    raise psutil.NoSuchProcess(self._pid) from None
                continue
            pss += shares.get("Pss", 0)
            held += shares.get("Pss_Anon", 0) + shares.get("Pss_Shmem", 0)
        peaks = self.peaks
        peaks.parent_rss = max(peaks.parent_rss, rss[0])
        peaks.tree_rss = max(peaks.tree_rss, sum(rss))
        peaks.tree_pss = max(peaks.tree_pss, pss)
        peaks.tree_held = max(peaks.tree_held, held)
        peaks.num_processes = max(peaks.num_processes, len(rss))


def _shares(pid: int) -> dict[str, int]:
    """Bytes by name ("Pss" and so on) of a process, a shared page split among those that share it; {} but on Linux."""
    path = Path(f"/proc/{pid}/smaps_rollup")
    if not path.exists():
        return {}
    words = [line.split() for line in path.read_text().splitlines()[1:]]
    return {name.rstrip(":"): int(size) * 1024 for name, size, *_ in words}
