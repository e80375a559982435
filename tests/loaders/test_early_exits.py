"""Fifty epochs left early, in every loader: nothing of them stays."""

import gc
import os
import re
import threading
from pathlib import Path

import psutil
from commands import python
from settling import at_rest, settled
from stored_samples import LOADERS, for_each

NUM_EXITS = 50


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


def held_without_feeders() -> dict[str, object]:
    """`held()`, once the threads of DataLoader's queues are gone."""
    settled(lambda: any("QueueFeeder" in thread.name for thread in threading.enumerate()), False)
    return held()


@for_each(LOADERS)
def test_fifty_epochs_left_early_leave_nothing(samples, name, resize, open_one):
    """Within one loader, and with it closed."""
    for _ in range(2):  # what libraries start once and keep, their thread pools for instance
        next(open_one(samples, name, resize).epoch(0))
    gc.collect()
    without = at_rest(held_without_feeders)
    loader = open_one(samples, name, resize)
    next(loader.epoch(0)), loader._end_running("the test begins")
    gc.collect()
    before = at_rest(held_without_feeders)
    for turn in range(NUM_EXITS):
        batches = loader.epoch(turn, start=turn % 3)
        next(batches)
        if turn % 2:
            batches.close()
        del batches
    assert settled(held, before) == before
    loader.close()
    del loader
    assert settled(held, without) == without


_FORGOTTEN = """
import atexit, sys, threading

def threads():
    return {thread for thread in threading.enumerate() if "QueueFeeder" not in thread.name}

atexit.register(lambda: print("left:", *(thread.name for thread in threads() - before)))
from loaders.api import LoaderOptions
from loaders.choose import choose_loader, open_loader
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records

records = open_records(sys.argv[1], "train")
plan = Plan(records.widths, records.heights, Shuffled(4), View(RandomResizedCrop(), 32))
before, forgotten = threads(), []
for name in sys.argv[2:]:
    try:
        choose_loader(name)
    except FeedrateError:  # not installed
        continue
    forgotten.append(open_loader(name, records, plan, LoaderOptions(num_workers=2)).epoch(0))
    next(forgotten[-1])
assert threads() - before
"""


def test_epochs_that_nobody_closes_end_before_python_does(packed):
    """From 3.13 on it would else never end: it waits for threads that stand still."""
    names = dict.fromkeys(case.name for case in LOADERS)
    done = python("-c", _FORGOTTEN, str(packed), *names)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left:\n", "")


_STUCK = """
import sys, threading
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records

records = open_records(sys.argv[1], "train")
read, begun = records.read, threading.Event()

def stuck(index):
    begun.set()
    threading.Event().wait()  # as on a network drive that is gone

records.read = stuck
plan = Plan(records.widths, records.heights, Shuffled(4), View(RandomResizedCrop(), 32))
epoch = open_loader("turbo", records, plan, LoaderOptions(num_workers=2)).epoch(0)
threading.Thread(target=next, args=(epoch,), daemon=True).start()
begun.wait()
other = open_loader("turbo", records, plan, LoaderOptions(num_workers=2)).epoch(0)
print("leaves")
sys.exit(3)
"""


def test_a_read_that_never_returns_does_not_keep_python(image_folder):
    done = python("-c", _STUCK, str(image_folder))
    assert (done.returncode, done.stdout) == (3, "leaves\n")


_STUCK_AHEAD = """
import sys, threading, time
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.plan import Plan, Shuffled, View
from loaders.records import open_records

records = open_records(sys.argv[1], "train")
read, begun, first = records.read, threading.Event(), set()
plan = Plan(records.widths, records.heights, Shuffled(4), View(RandomResizedCrop(), 32))

def stuck(index):
    if index not in first:
        begun.set()
        threading.Event().wait()
    return read(index)

records.read = stuck
loader = open_loader("turbo", records, plan, LoaderOptions(num_workers=2, num_ahead=2))
first |= set(plan.rows(0, 0, LoaderOptions().shard).ids.tolist())
epoch = loader.epoch(0)
next(epoch)
begun.wait()
print("leaves")
sys.exit(3)
"""


def test_nor_does_one_for_a_batch_that_nobody_asked_for_yet(image_folder):
    done = python("-c", _STUCK_AHEAD, str(image_folder))
    assert (done.returncode, done.stdout, done.stderr) == (3, "leaves\n", "")
