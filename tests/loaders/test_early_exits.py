"""Fifty epochs left early, in every loader: nothing of them stays."""

import gc
import os
import re
import threading
import time
from pathlib import Path

import psutil
from stored_samples import LOADERS, for_each

NUM_EXITS = 50


def held() -> dict[str, object]:
    """What this process holds that an epoch might have left."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate() if "QueueFeeder" not in thread.name),
        "native threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "processes": len(psutil.Process().children(recursive=True)),
        "open files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "shared memory": [path.name for path in Path("/dev/shm").iterdir() if not _is_anothers(path)],
        "shared maps": sum(" rw-s " in line for line in Path("/proc/self/maps").read_text().splitlines()),
    }


def _is_anothers(path: Path) -> bool:
    """A file of torch's that a process alive and not of ours made: this machine may be training beside."""
    made_by = re.fullmatch(r"torch_(\d+)_.*", path.name)
    if made_by is None or not psutil.pid_exists(pid := int(made_by[1])):
        return False
    return os.getpid() not in (pid, *(parent.pid for parent in psutil.Process(pid).parents()))


def settled(wanted: dict[str, object], within_s: float = 3) -> dict[str, object]:
    """`held()`, once it is `wanted`: the threads of DataLoader's queues end a moment after their queue was closed."""
    until = time.monotonic() + within_s
    while (now := held()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return now


@for_each(LOADERS)
def test_fifty_epochs_left_early_leave_nothing(samples, name, resize, open_one):
    """Within one loader, and with it closed."""
    for _ in range(2):  # what libraries start once and keep, their thread pools for instance
        next(open_one(samples, name, resize).epoch(0))
    gc.collect()
    time.sleep(0.1)
    without = held()
    loader = open_one(samples, name, resize)
    next(loader.epoch(0)), loader._end_running("the test begins")
    gc.collect()
    time.sleep(0.1)
    before = held()
    for turn in range(NUM_EXITS):
        batches = loader.epoch(turn, start=turn % 3)
        next(batches)
        if turn % 2:
            batches.close()
        del batches
    assert settled(before) == before
    loader.close()
    del loader
    assert settled(without) == without
