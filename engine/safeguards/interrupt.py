"""Signals that ask a run to stop: noted at once, obeyed between two steps, by all ranks at the same one."""

import os
import select
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from ..dist import Ranks
from .early_end import STARTED_BY

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_LAUNCHED_BY = "TORCHELASTIC_RUN_ID"  # torchrun sets it for what it starts
_SAME_WISH_S = 1.0
_START_MAY_TAKE_S = 5.0


class Stopped(BaseException):
    """A signal asked the run to stop where it has nothing to finish first. No Exception: libraries swallow those."""


class StopRequest:
    """Catches STOP_SIGNALS. The first is noted, so that a checkpoint can be written; a second exits at once. Before the
    first step there is nothing to write: there the first raises Stopped in the main thread.

    SIGHUP, which says that the terminal is gone, stays ignored where it is, as under `nohup`.

    A thread listens too, since Python's own handlers wait for the main thread, which may be stuck in a call that does
    not return: where ranks wait for one that is gone, for instance.

    Two signals within a second are one wish: Slurm and `timeout` send one to the process and to its group, and torchrun
    hands on what it gets. Its end without a word is one too, since nobody would end its orphans.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._heard_at = 0.0
        self._is_starting = True
        self._launcher = STARTED_BY if _LAUNCHED_BY in os.environ else None
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        caught = [number for number in STOP_SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
        self._previous = {number: signal.signal(number, self._interrupt) for number in caught}
        self._previous_wakeup = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self._listener.start()

    @property
    def is_up(self) -> bool:
        return self.signal is not None

    def end_start(self) -> None:
        """From here on a signal is noted alone. Raises Stopped if one came before."""
        self._is_starting = False
        if self.is_up:
            raise Stopped

    def restore(self) -> None:
        """Put the earlier handlers back."""
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._mouth.shutdown(socket.SHUT_WR)  # the listener hears it, even where a forked process holds this end too
        self._listener.join()
        self._mouth.close()
        self._ear.close()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it can. Of a signal's two ways this one is for the start alone."""
        self.signal = self.signal or signal.Signals(number)
        if self._is_starting:
            self._is_starting = False
            raise Stopped

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._ear], [], [], 1.0)
            if ready:
                heard = self._ear.recv(64)  # the numbers of all signals that Python handles, a byte each
                if not heard:
                    return
                for number in heard:
                    if number in STOP_SIGNALS:
                        self._note(signal.Signals(number))
            if self._launcher is not None and os.getppid() != self._launcher:
                self._launcher = None
                self._note(signal.SIGTERM)
            if self._is_starting and self.is_up and time.monotonic() - self._heard_at > _START_MAY_TAKE_S:
                self._exit("before the first step, while it waited for something else")

    def _note(self, number: signal.Signals) -> None:
        now = time.monotonic()
        is_second = self._heard_at > 0
        if is_second and now - self._heard_at >= _SAME_WISH_S:
            self._exit("at once, as a second signal asks")
        if not is_second:
            self.signal, self._heard_at = self.signal or number, now

    def _exit(self, how: str) -> NoReturn:
        number = self.signal or signal.SIGTERM
        print(f"stopped by {number.name} {how}", file=sys.stderr, flush=True)
        os._exit(128 + number)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _forget_in_child() -> None:
    """A forked process must not write its own signals into the parent's ear."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)


class Lookout:
    """When ranks ask each other whether to stop or to write a checkpoint: after the same steps on all of them.

    Asking makes the host wait for a GPU, so there it is done every `every_s` seconds or every `most_steps` steps,
    whichever is sooner. That it is so many steps for all, the ranks settle each time, by the slowest one's clock.
    """

    def __init__(self, ranks: Ranks, most_steps: int, every_s: float = 2.0) -> None:
        self._ranks = ranks
        waits_for_device = ranks.world_size > 1 and ranks.device.type != "cpu"
        self._most_steps = most_steps if waits_for_device else 1
        self._every_s = every_s
        self._interval = self._steps_left = 1
        self._asked_at = time.monotonic()

    def ask(self, *wishes: bool) -> list[bool]:
        """After a step: which of the wishes any rank has; none of them where it is not yet time to ask."""
        self._steps_left -= 1
        if self._steps_left:
            return [False] * len(wishes)
        step_s = (time.monotonic() - self._asked_at) / self._interval
        *raised, slowest_s = self._ranks.largest([*map(float, wishes), step_s])
        self._interval = self._steps_left = max(1, min(self._most_steps, int(self._every_s / max(slowest_s, 1e-6))))
        self._asked_at = time.monotonic()
        return [bool(wish) for wish in raised]
