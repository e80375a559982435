"""What happens while a command still imports what it needs, which takes seconds. At Ctrl-C nothing can be lost, and
nothing is said."""

import os
import signal
from types import FrameType
from typing import NoReturn

STARTED_BY = os.getppid()
"""The process that started this one. Asked before the long imports: a launcher that dies meanwhile leaves its ranks to
another parent, whom they would take for it."""


def end_early() -> None:
    """From here on Ctrl-C ends the process at once, with status 130. Where it is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def end_early_no_more() -> None:
    """From here on it raises KeyboardInterrupt again, for those that have something to tidy up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
