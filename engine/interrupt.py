"""Signals that ask a run to stop: noted at once, obeyed between two steps."""

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Catches SIGINT and SIGTERM. The first is noted, so that a checkpoint can be written; a second exits at once.

    The handler only sets a field: nothing that could wait, and no word to other ranks, belongs in one.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}

    @property
    def is_up(self) -> bool:
        return self.signal is not None

    def restore(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_up:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
