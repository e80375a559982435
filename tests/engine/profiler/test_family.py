import hashlib
import multiprocessing
import os
import time

import pytest
import torch

from engine.profiler.family import Family

CPU = torch.device("cpu")


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        hashlib.sha256(bytes(10_000)).digest()


def _work(ready, done):
    burn(0.3)
    ready.set()
    done.wait(60)


def test_processor_time_of_this_process_and_of_its_children_counts():
    family = Family(CPU)
    family.begin()
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=_work, args=(ready, done))
    child.start()
    try:
        burn(0.2)
        assert ready.wait(60)
        used = family.end()
    finally:
        done.set()
        child.join()
    assert used.cpu_s >= 0.45  # the system counts in hundredths of a second
    assert {os.getpid(), child.pid} <= {process.pid for process in used.processes}
    of_child = next(process for process in used.processes if process.pid == child.pid)
    assert of_child.cpus * used.seconds == pytest.approx(0.3, abs=0.1)
    assert used.memory_bytes < sum(process.rss_bytes for process in used.processes)  # shared pages count once
    assert used.gpu_share is None and used.gpu_power_w is None


def test_calls_that_read_are_counted(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000))
    family = Family(CPU)
    family.begin()
    with open(tmp_path / "file", "rb", buffering=0) as file:
        for _ in range(500):
            file.read(1)
    used = family.end()
    if used.reads is None:
        pytest.skip("/proc does not tell here")
    assert used.reads >= 500


def test_where_proc_tells_nothing_the_answer_is_none(tmp_path):
    family = Family(CPU, proc=tmp_path)
    family.begin()
    used = family.end()
    assert (used.read_bytes, used.reads, used.shared_bytes) == (None, None, None)
    assert used.memory_bytes > 10**7
