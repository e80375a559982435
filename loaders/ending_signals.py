"""Signals that end a command as Ctrl-C does, so that what it began is tidied up, and its status tells which it was."""

import signal
from types import FrameType
from typing import NoReturn


class EndedBySignal(KeyboardInterrupt):
    """The signal that came; its `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def unwind_at_signals() -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP unwind the program, and no second one disturb that.

    One of them that is ignored, as SIGHUP under `nohup`, stays so.
    """
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    caught = [number for number in ending if signal.getsignal(number) != signal.SIG_IGN]

    def end(number: int, frame: FrameType | None) -> NoReturn:
        for one in caught:
            signal.signal(one, signal.SIG_IGN)
        raise EndedBySignal(number)

    for number in caught:
        signal.signal(number, end)


def status_of(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a command that this ended: 128 + the signal's number, SIGINT's where Python itself raised."""
    return 128 + (interrupt.number if isinstance(interrupt, EndedBySignal) else signal.SIGINT)
