"""The crew's watch over its workers, on a clock of the test's own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest
from commands import REPOSITORY, TIMEOUT_S

from converters import crew, split_pass
from loaders.errors import FeedrateError


class Clock:
    """Stands for `time` and `wait`: each wait takes as long as `waits_s` says, and hears nothing until the last."""

    def __init__(self, waits_s):
        self.now_s, self._waits_s = 100.0, list(waits_s)

    def monotonic(self):
        return self.now_s

    def wait(self, connections, timeout_s):
        self.now_s += self._waits_s.pop(0)
        return [] if self._waits_s else connections


class Busy(crew._Worker):
    """A worker without a process, which has been at the same item from the start."""

    def __init__(self):
        self.connection, self.far_end = multiprocessing.Pipe()
        self.far_end.send(("prepared", 0, None))
        self.tasks, self.state, self._seen, self._since_s = [0], [0, 3, 7], -1, 0.0


@pytest.fixture
def watch(monkeypatch):
    """Receive the message of a busy worker after these waits, seconds each."""

    def receive(*waits_s):
        clock = Clock(waits_s)
        monkeypatch.setattr(crew, "time", clock)
        monkeypatch.setattr(crew, "wait", clock.wait)
        one = crew._Crew(lambda number, item: f"item {item} of task {number}", stuck_s=300.0)
        one.workers.append(Busy())
        return one.receive()

    return receive


def test_a_worker_that_stays_at_one_item_is_stuck(watch):
    with pytest.raises(FeedrateError, match="stuck at item 3 of task 0 for 300 s"):
        watch(*[1.0] * 302, 1.0)


@pytest.mark.parametrize("pause_s", [301.0, 86_400.0])
def test_time_in_which_the_whole_pass_was_suspended_does_not_count(watch, pause_s):
    assert watch(1.0, 1.0, pause_s, *[1.0] * 290, 1.0)[0][1] == ("prepared", 0, None)
    with pytest.raises(FeedrateError, match="stuck"):
        watch(1.0, 1.0, pause_s, *[1.0] * 302, 1.0)


# A signal that comes while a worker is being asked for: another thread takes it, so blocking it in the first one is
# not enough, and the first one would leave the process that forks workers with half a request.
STARTED_UNDER_A_SIGNAL = """
import os, signal, sys, threading, time
from multiprocessing import reduction
sys.path.insert(0, sys.argv[1])
from converters.crew import run_in_order

class Nothing:
    def read_ahead(self, task): pass
    def prepare(self, task, at): return None, None
    def write(self, kept, place): pass

def end(number, frame):
    raise KeyboardInterrupt(number)

if __name__ == "__main__":
    number, send = int(sys.argv[2]), reduction.sendfds
    signal.signal(number, end)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

    sent = []

    def send_under_a_signal(connection, fds):
        if sent:  # by the second worker the process that forks them is up
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        sent.append(fds)
        send(connection, fds)

    reduction.sendfds = send_under_a_signal
    try:
        list(run_in_order(Nothing(), [1, 2], 2, lambda task, report: None, lambda number, item: "it"))
    except KeyboardInterrupt as error:
        sys.exit(f"ended by {error}")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_starts_waits_until_it_has_started(tmp_path, number):
    script = tmp_path / "packs.py"
    script.write_text(STARTED_UNDER_A_SIGNAL)
    command = [sys.executable, str(script), str(REPOSITORY), str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stderr) == (1, f"ended by {int(number)}\n")


def test_a_signal_while_the_saving_thread_starts_waits_until_it_has_started(monkeypatch):
    """One that was not started could not be awaited, and that error took the signal's place."""

    class Ended(BaseException):
        pass

    class StartedUnderASignal(threading.Thread):
        def start(self):
            os.kill(os.getpid(), signal.SIGTERM)
            super().start()

    def end(number, frame):
        raise Ended

    saved = []
    monkeypatch.setattr(split_pass.threading, "Thread", StartedUnderASignal)
    before = signal.signal(signal.SIGTERM, end)
    try:
        saver = split_pass._Saver(lambda: saved.append(1))
        with pytest.raises(Ended):
            saver.save()
        saver.end()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved == [1]
