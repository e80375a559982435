"""Signals that wait until something is done."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import ForkProcess

import pytest

from loaders.held_signals import held_signals
from loaders.plan import Sequential

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


class Ended(BaseException):
    """What the handlers of these tests raise."""


@pytest.fixture(params=ENDING)
def number(request) -> Iterator[signal.Signals]:
    """A signal at which the first thread raises Ended, with another thread there that would take it if it were
    blocked."""
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()

    def end(number, frame):
        raise Ended(signal.Signals(number).name)

    before = signal.signal(request.param, end)
    yield request.param
    signal.signal(request.param, before)
    over.set()
    other.join()


def test_they_are_answered_at_the_end_and_once(number):
    done, handler = [], signal.getsignal(number)
    with pytest.raises(Ended, match=number.name), held_signals():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        done.append(1)
    assert done == [1] and signal.getsignal(number) is handler
    with held_signals():
        pass


def test_an_error_meanwhile_gives_way_to_them(number):
    with pytest.raises(Ended) as caught, held_signals():
        os.kill(os.getpid(), number)
        raise OSError("the process that was asked is ended by the same signal")
    assert isinstance(caught.value.__context__, OSError)


def test_what_is_ignored_or_ends_the_process_at_once_stays_so():
    with contextlib.ExitStack() as undo:
        for number, answer in zip(ENDING, [signal.SIG_IGN, signal.SIG_DFL] * 2, strict=True):
            undo.callback(signal.signal, number, signal.signal(number, answer))
        with held_signals():
            assert [signal.getsignal(number) for number in ENDING] == [signal.SIG_IGN, signal.SIG_DFL] * 2


def test_in_other_threads_nothing_is_held_since_none_of_them_is_interrupted(number):
    handler, seen = signal.getsignal(number), []

    def look():
        with held_signals():
            seen.append(signal.getsignal(number))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [handler]


@pytest.mark.parametrize("number", [signal.SIGINT], indirect=True)
def test_who_is_interrupted_while_workers_start_gets_no_other_error(folder, open_one, monkeypatch, number):
    """torch's DataLoader, half made, ends by an AttributeError of its own."""
    start, unraisable = ForkProcess.start, []

    def start_under_a_signal(process):
        start(process)
        os.kill(os.getpid(), number)
        time.sleep(0.05)

    monkeypatch.setattr(ForkProcess, "start", start_under_a_signal)
    monkeypatch.setattr(sys, "unraisablehook", lambda event: unraisable.append(event.exc_value))
    with pytest.raises(Ended):
        next(open_one(folder, "torchvision", order=Sequential(1)).epoch(0))
    assert unraisable == []
    assert not multiprocessing.active_children()
