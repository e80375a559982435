"""Loaders in processes that are forked from one which uses them, and epochs that several threads lay hands on."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from stored_samples import LOADERS, for_each

from loaders.errors import FeedrateError
from loaders.plan import Sequential

every_loader = for_each([case for case in LOADERS if case.name != "synthetic"])
_LIMIT_S = 60


def in_a_fork(what: Callable[[], bool]) -> int:
    """The number of a forked process, which ends with status 0 if `what` is true there and in time."""
    process = os.fork()
    if process:
        return process
    signal.alarm(_LIMIT_S)
    is_true = False
    with suppress(BaseException):
        is_true = what()
    os._exit(0 if is_true else 1)


def status_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def pixels_of(batches) -> list[torch.Tensor]:
    return [batch.images.clone() for batch in batches]


def equal(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(ones) == len(others) and all(map(torch.equal, ones, others))


@every_loader
def test_an_epoch_is_its_process_s_own_and_a_fork_that_ends_it_ends_nothing(samples, name, resize, open_one):
    plain = pixels_of(open_one(samples, name, resize, order=Sequential(4)).epoch(0))
    loader = open_one(samples, name, resize, order=Sequential(4))
    batches = loader.epoch(0)
    images = [next(batches).images.clone()]

    def is_told() -> bool:
        try:
            list(batches)
        except FeedrateError as error:
            return "belongs to the process that this one was forked from" in str(error)
        return False

    def closes() -> bool:
        loader.close()
        return True

    def forgets() -> bool:
        nonlocal batches, loader
        del batches, loader
        gc.collect()
        return True

    for what in (is_told, closes, forgets):
        assert status_of(in_a_fork(what)) == 0, what.__name__
    assert equal(images + pixels_of(batches), plain)


@every_loader
def test_processes_forked_from_one_that_has_used_a_loader_may_all_use_it(samples, name, resize, open_one):
    """Each has memory of its own: in torchvision's, which is shared with workers, several would write else."""
    loader = open_one(samples, name, resize, order=Sequential(2), num_workers=1)
    plain = pixels_of(loader.epoch(0))

    def has_the_same() -> bool:
        torch.set_num_threads(1)  # mode `device` uses torch's threads, which no fork has
        images = []
        for batch in loader.epoch(0):
            time.sleep(0.002)
            images.append(batch.images.clone())
        return equal(images, plain)

    forks = [in_a_fork(has_the_same) for _ in range(3)]
    assert [status_of(fork) for fork in forks] == [0, 0, 0]


def test_an_epoch_that_was_not_begun_may_be_taken_by_a_fork(folder, open_one):
    batches = open_one(folder, "turbo", order=Sequential(4)).epoch(0)
    assert status_of(in_a_fork(lambda: len(list(batches)) == 10)) == 0


class _Held:
    """Records whose samples can be read once `may_read` is set."""

    def __init__(self, records) -> None:
        self._records = records
        self.may_read = threading.Event()
        self.is_asked = threading.Event()

    def __getattr__(self, name: str):
        return getattr(self._records, name)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int):
        self.is_asked.set()
        assert self.may_read.wait(_LIMIT_S)
        return self._records.read(index)


def _failure_of(what: Callable[[], object], failures: list[BaseException]) -> None:
    try:
        what()
    except BaseException as error:
        failures.append(error)


@pytest.mark.parametrize("end", ["close", "close of the loader", "another epoch"])
def test_a_thread_may_end_an_epoch_of_which_another_awaits_a_batch(folder, open_one, end):
    held = _Held(folder)
    loader = open_one(held, "turbo", order=Sequential(4))
    batches = loader.epoch(0)
    ending = {"close": batches.close, "close of the loader": loader.close, "another epoch": lambda: loader.epoch(1)}
    in_next: list[BaseException] = []
    in_end: list[BaseException] = []
    asks = threading.Thread(target=_failure_of, args=(lambda: next(batches), in_next))
    ends = threading.Thread(target=_failure_of, args=(ending[end], in_end))
    asks.start()
    assert held.is_asked.wait(_LIMIT_S)
    ends.start()
    while batches._error is None and ends.is_alive():
        time.sleep(0.001)
    held.may_read.set()
    asks.join(_LIMIT_S)
    ends.join(_LIMIT_S)
    assert not in_end
    assert [type(error) for error in in_next] == [FeedrateError] and "no more batches" in str(in_next[0])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feedrate-")]


def test_a_signal_s_handler_may_close_the_loader_that_it_interrupts(folder, open_one):
    held = _Held(folder)
    loader = open_one(held, "turbo", order=Sequential(4))

    def on_signal(*_: object) -> None:
        loader.close()
        held.may_read.set()

    def interrupt() -> None:
        assert held.is_asked.wait(_LIMIT_S)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(FeedrateError, match="its loader was closed"):
            next(loader.epoch(0))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_two_threads_that_ask_one_epoch_are_told_that_one_must(folder, open_one):
    held = _Held(folder)
    batches = open_one(held, "turbo", order=Sequential(4)).epoch(0)
    got: list[list[int]] = []
    asks = threading.Thread(target=lambda: got.append(next(batches).ids.tolist()))
    asks.start()
    assert held.is_asked.wait(_LIMIT_S)
    with pytest.raises(FeedrateError, match="two threads ask one epoch"):
        next(batches)
    held.may_read.set()
    asks.join(_LIMIT_S)
    assert got == [[0, 1, 2, 3]] and next(batches).ids.tolist() == [4, 5, 6, 7]  # the other may go on
