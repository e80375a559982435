"""A sample or a worker that fails is an error that says which, in every loader, and never a hang or a grey picture."""

import io
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from pictures import smooth_picture
from PIL import Image
from stored_samples import READING_LOADERS, for_each
from torch.utils.data import get_worker_info

from loaders.crops import CenterCrop
from loaders.errors import LoaderError
from loaders.plan import Sequential, View

loaders_of_jpegs = for_each([case for case in READING_LOADERS if case.reads_jpegs])
loaders_of_folders = for_each([case for case in READING_LOADERS if "folder" in case.kinds])
BAD = 23


def cut_short(keep: float) -> Callable[[bytes], bytes]:
    return lambda jpeg: jpeg[: int(len(jpeg) * keep)]


def of_another_size(jpeg: bytes) -> bytes:
    out = io.BytesIO()
    Image.fromarray(smooth_picture(41, 43, 1)).save(out, "JPEG")
    return out.getvalue()


WAYS_TO_FAIL = {
    "half": (cut_short(0.5), "truncated"),
    "without its last bytes": (cut_short(0.995), "truncated"),
    "header only": (lambda jpeg: jpeg[:200], "cannot be delivered"),
    "noise": (lambda jpeg: bytes(range(256)) * 20, "cannot identify"),
    "another size": (of_another_size, "41×43"),
}
# what can befall a file of a folder only
WAYS_OF_FILES = {
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "missing": (Path.unlink, "No such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "directory"),
}


def check_it_is_named(loader, records, reason: str) -> None:
    """Sample BAD is an error that says so, and those before it arrive."""
    batches = loader.epoch(0)
    for first in range(0, BAD - 8, 8):
        assert next(batches).ids.tolist() == list(range(first, first + 8))
    with pytest.raises(LoaderError, match=f"sample {BAD} ") as caught:
        next(batches)
    message = str(caught.value)
    assert records.where(BAD) in message and reason in message and "\n" not in message
    assert "; an evaluation counts every image, so mend it or leave it out; tools/convert.py finds all" in message
    with pytest.raises(LoaderError, match=f"sample {BAD} "):
        next(batches)  # not StopIteration: it would look like a short epoch
    assert next(loader.epoch(0)).num_valid == 8  # the loader itself goes on


@loaders_of_jpegs
@pytest.mark.parametrize("way", WAYS_TO_FAIL)
def test_a_sample_that_cannot_be_delivered_is_named_with_its_place(damaged, name, resize, way, open_one):
    change, reason = WAYS_TO_FAIL[way]
    records = damaged({BAD: change})
    loader = open_one(records, name, resize, order=Sequential(8), view=View(CenterCrop(28, 32), 32))
    check_it_is_named(loader, records, reason)


@loaders_of_folders
@pytest.mark.parametrize("way", WAYS_OF_FILES)
def test_a_file_that_is_gone_is_named(damaged, name, resize, way, open_one):
    damage, reason = WAYS_OF_FILES[way]
    records = damaged({})
    damage(Path(records.where(BAD)))
    loader = open_one(records, name, resize, order=Sequential(8), view=View(CenterCrop(28, 32), 32))
    check_it_is_named(loader, records, reason)


@loaders_of_jpegs
def test_of_several_bad_samples_the_first_in_the_batch_is_named(damaged, name, resize, open_one):
    records = damaged(dict.fromkeys((29, 17, 23), cut_short(0.3)))
    for num_workers in (1, 3):
        loader = open_one(records, name, resize, order=Sequential(37), num_workers=num_workers)
        with pytest.raises(LoaderError, match="sample 17 "):
            next(loader.epoch(0))


@loaders_of_folders
def test_a_bug_keeps_its_own_kind_of_error(folder, name, resize, open_one, monkeypatch):
    def broken(index: int):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(folder, "read", broken)
    loader = open_one(folder, name, resize)
    ids = loader._plan.rows(3, 1).ids
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        next(loader.epoch(3, start=1))
    assert f"while making batch 1 of epoch 3, samples {ids[0]} … {ids[-1]}" in caught.value.__notes__


def _workers() -> list[psutil.Process]:
    """DataLoader's processes; other tests may have left a fork server of their own."""
    return [child for child in psutil.Process().children() if child.name() == "pt_data_worker"]


def test_a_worker_that_is_killed_becomes_an_error_soon(folder, open_one):
    loader = open_one(folder, "torchvision", order=Sequential(1), num_ahead=2)
    batches = loader.epoch(0)
    next(batches)
    handler = signal.getsignal(signal.SIGCHLD)
    os.kill(_workers()[0].pid, signal.SIGKILL)
    time.sleep(0.2)  # no exception may strike here, in the middle of somebody's training step
    started = time.monotonic()
    with pytest.raises(LoaderError, match="died"):
        for _ in batches:
            pass
    assert time.monotonic() - started < 60
    assert not _workers()
    assert signal.getsignal(signal.SIGCHLD) is handler is signal.SIG_DFL
    assert len(list(loader.epoch(1))) == 37


def test_a_worker_that_dies_of_a_sample_names_it(folder, open_one, monkeypatch):
    read, parent = folder.read, os.getpid()

    def deadly(index: int):
        if index == 17 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(index)

    monkeypatch.setattr(folder, "read", deadly)
    with pytest.raises(LoaderError, match="was killed by SIGSEGV while making sample 17 ") as caught:
        list(open_one(folder, "torchvision", order=Sequential(8)).epoch(0))
    assert f"({folder.where(17)}) of batch 2 of epoch 0" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_workers_leave_signals_that_ask_a_run_to_stop_to_their_parent(folder, open_one, number):
    batches = open_one(folder, "torchvision", order=Sequential(1)).epoch(0)
    next(batches)
    workers = _workers()
    assert len(workers) == 2
    for worker in workers:  # by another process, as torchrun and Slurm do: SIGTERM of the parent's own is obeyed
        subprocess.run(["kill", f"-{number.value}", str(worker.pid)], check=True)
    assert len(list(batches)) == 36


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_such_signals_do_not_reach_a_worker_that_is_just_being_born(folder, open_one, monkeypatch, number):
    from loaders import torchvision_loader

    prepare = torchvision_loader._obey_the_parent_alone

    def interrupted_first():
        os.kill(os.getpid(), number)
        prepare()

    monkeypatch.setattr(torchvision_loader, "_obey_the_parent_alone", interrupted_first)
    assert len(list(open_one(folder, "torchvision", order=Sequential(1)).epoch(0))) == 37


def test_workers_that_never_come_to_life_are_replaced_and_no_batch_is_lost(folder, open_one, monkeypatch):
    """As in CPython 3.11, where a process that is forked at a bad moment waits forever before it runs anything."""
    from loaders import torchvision_loader

    plain = [batch.ids.tolist() for batch in open_one(folder, "torchvision", order=Sequential(1)).epoch(0)]
    prepare, start = torchvision_loader._obey_the_parent_alone, torchvision_loader.TorchvisionLoader._started
    tries = []

    def counted(loader, *arguments):
        tries.append(1)
        return start(loader, *arguments)

    def stuck_at_first():
        if len(tries) == 1 and get_worker_info().id == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
            time.sleep(1000)
        prepare()

    monkeypatch.setattr(torchvision_loader.TorchvisionLoader, "_started", counted)
    monkeypatch.setattr(torchvision_loader, "_obey_the_parent_alone", stuck_at_first)
    monkeypatch.setattr(torchvision_loader, "_PATIENCE_S", (1.0, 60.0))
    with pytest.warns(UserWarning, match="did not come to life within 1 s: 2 new ones take over"):
        found = [batch.ids.tolist() for batch in open_one(folder, "torchvision", order=Sequential(1)).epoch(0)]
    assert found == plain
    assert not multiprocessing.active_children()


def test_where_no_worker_comes_to_life_the_run_ends_with_a_sentence(folder, open_one, monkeypatch):
    from loaders import torchvision_loader

    monkeypatch.setattr(torchvision_loader, "_obey_the_parent_alone", lambda: time.sleep(1000))
    monkeypatch.setattr(torchvision_loader, "_PATIENCE_S", (0.2, 0.3))
    with pytest.warns(UserWarning), pytest.raises(LoaderError, match="did not come to life in 2 tries"):
        next(open_one(folder, "torchvision", order=Sequential(1)).epoch(0))
    assert not multiprocessing.active_children()


def test_a_worker_ends_when_its_parent_says_so_even_while_it_is_stuck(folder, open_one, monkeypatch, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read = folder.read
    monkeypatch.setattr(folder, "read", lambda index: read(index) if index < 2 else fifo.read_bytes())
    batches = open_one(folder, "torchvision", order=Sequential(1)).epoch(0)
    next(batches)
    next(batches)
    workers = _workers()
    assert len(workers) == 2
    time.sleep(0.3)  # they are at samples 2 and 3 by now, and wait for someone to write
    for worker in workers:
        worker.terminate()
    # awaited by multiprocessing itself, which would take those whom another has awaited for alive for ever
    started = {process.pid: process for process in multiprocessing.active_children()}
    for worker in workers:
        if worker.pid in started:
            started[worker.pid].join(60)
    assert not _workers()
    batches.close()


def test_a_thread_that_cannot_even_begin_is_an_error(folder, open_one, monkeypatch):
    from loaders import turbo_loader

    monkeypatch.setattr(turbo_loader, "Decoder", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(open_one(folder, "turbo").epoch(0))


def test_a_plan_for_other_data_is_refused(folder, open_one):
    from loaders.api import LoaderOptions
    from loaders.choose import open_loader
    from loaders.errors import FeedrateError
    from loaders.plan import Plan

    plan = Plan(folder.widths[:-1], folder.heights[:-1], Sequential(4), View(CenterCrop(28, 32), 32))
    with pytest.raises(FeedrateError, match="36 samples and the data 37"):
        open_loader("turbo", folder, plan, LoaderOptions(device=torch.device("cpu")))
