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
_PATIENCE_S = 60


def held() -> dict[str, object]:
    """What this process holds that an epoch might have left."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate() if "QueueFeeder" not in thread.name),
        "native threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "processes": len(psutil.Process().children(recursive=True)),
        "open files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "shared memory": [path.name for path in Path("/dev/shm").iterdir() if _may_be_ours(path)],
        "shared maps": sum(" rw-s " in line for line in Path("/proc/self/maps").read_text().splitlines()),
    }


def _may_be_ours(path: Path) -> bool:
    """A file of torch's that this process or one of its own made, or one that is gone: others may be at work here."""
    made_by = re.fullmatch(r"torch_(\d+)_.*", path.name)
    if made_by is None:
        return False
    try:
        maker = psutil.Process(int(made_by[1]))
        return os.getpid() in (maker.pid, *(parent.pid for parent in maker.parents()))
    except psutil.Error:
        return True


def settled(wanted: dict[str, object]) -> dict[str, object]:
    """`held()`, once it is `wanted`: threads end a moment after they were joined, on a busy machine a long one."""
    until = time.monotonic() + _PATIENCE_S
    while (now := held()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return now


def at_rest() -> dict[str, object]:
    """`held()`, once it does not change any more and the threads of DataLoader's queues are gone."""
    until, before = time.monotonic() + _PATIENCE_S, held()
    while time.monotonic() < until:
        time.sleep(0.25)
        now = held()
        if now == before and not any("QueueFeeder" in thread.name for thread in threading.enumerate()):
            break
        before = now
    return before


@for_each(LOADERS)
def test_fifty_epochs_left_early_leave_nothing(samples, name, resize, open_one):
    """Within one loader, and with it closed."""
    for _ in range(2):  # what libraries start once and keep, their thread pools for instance
        next(open_one(samples, name, resize).epoch(0))
    gc.collect()
    without = at_rest()
    loader = open_one(samples, name, resize)
    next(loader.epoch(0)), loader._end_running("the test begins")
    gc.collect()
    before = at_rest()
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
