"""What a run tells of its use of processors and memory."""

import multiprocessing
import time

import psutil
import torch

from engine.profiler.resources import ResourceMeter
from loaders.cpus import available_cpus


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_memory_that_may_not_be_looked_at_closely_is_told_by_what_is_known_of_it(monkeypatch):
    def refused(process):
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)
    assert ResourceMeter(torch.device("cpu")).read().memory_bytes > 10**7


def _work(ready, done):
    burn(0.6)
    ready.set()
    done.wait(60)


def test_a_worker_that_ends_takes_nothing_from_what_the_others_used():
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=_work, args=(ready, done))
    child.start()
    assert ready.wait(60)
    meter, started = ResourceMeter(torch.device("cpu")), time.perf_counter()
    done.set()
    child.join()
    burn(0.2)
    seconds = time.perf_counter() - started
    assert meter.read().cpu_share * seconds * available_cpus() >= 0.1
