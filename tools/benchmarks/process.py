"""One run of a command: its time, its output, its memory if wanted; and no process of it left behind."""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from .memory import MemoryWatch, Peaks

REPOSITORY = Path(__file__).resolve().parents[2]
GRACE_S = 3.0  # what processes have to end when they are asked to
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl


@dataclass(frozen=True)
class Ran:
    """A command that has ended well.

    wall_s  from the start of its process to its end
    cpu_s   processor time of it and all it started (but on Linux: all it waited for)
    output  what it printed on standard output
    peaks   of its memory, if it was watched
    """

    wall_s: float
    cpu_s: float
    output: str
    peaks: Peaks | None

    def told(self) -> dict[str, Any]:
        """The last line of its output, which is JSON."""
        told: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return told


def shown(command: Sequence[str]) -> str:
    """The command as one would type it: interpreter and paths without what stands before the repository."""
    words = ["python" if word == sys.executable else word.removeprefix(f"{REPOSITORY}/") for word in command]
    return " ".join(f"'{word}'" if " " in word else word for word in words)


class CommandFailed(FeedrateError):
    """A command that has not ended well.

    how      what became of it and what it said last, without the command, which the message begins with
    is_late  whether it was ended for its time
    """

    def __init__(self, command: Sequence[str], how: str, is_late: bool) -> None:
        super().__init__(f"{shown(command)} {how}")
        self.how = how
        self.is_late = is_late


def run(command: Sequence[str], log: Path, timeout_s: float, is_watched: bool = False, grace_s: float = GRACE_S) -> Ran:
    """Run it from the repository's root, its standard error going to `log`.

    Raises CommandFailed, with the last line of `log` or else of what it printed, where it fails or takes longer than
    `timeout_s`. However this is left, all processes of the command are gone; `grace_s`: see `end_group`. If this
    process is killed, so is the command, and with it what that runs in this way.
    """
    timed_out = threading.Event()
    with open(log, "w+b") as errors, open(log.with_suffix(".out"), "w+b") as output, _adopting():
        cpu_before_s = _cpu_of_children_s()
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_die_with_the_parent,
        )
        timer = threading.Timer(timeout_s, _end_late, [process, timed_out, grace_s])
        timer.daemon = True
        timer.start()
        watch = MemoryWatch(process.pid) if is_watched else None
        try:
            if watch:
                watch.start()
            status = process.wait()  # without a timeout, which would look only every 50 ms
            wall_s = time.perf_counter() - started_s
        finally:
            timer.cancel()
            end_group(process, grace_s)
            process.wait()
            peaks = watch.stop() if watch else None
            _bury(process.pid)
        cpu_s = _cpu_of_children_s() - cpu_before_s
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if timed_out.is_set() or status:
        said = last_said(log.read_text(errors="replace"), printed)
        is_late = timed_out.is_set()
        how = f"was ended after {timeout_s:,.0f} s (--timeout-s)" if is_late else f"ended with status {status}"
        raise CommandFailed(command, f"{how}: {said}", is_late)
    return Ran(wall_s, cpu_s, printed, peaks)


def _die_with_the_parent() -> None:
    """In the child, before its program: else it would run on beside whatever is measured next."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_late(process: subprocess.Popen[bytes], timed_out: threading.Event, grace_s: float) -> None:
    timed_out.set()
    end_group(process, grace_s)


def end_group(process: subprocess.Popen[Any], grace_s: float = GRACE_S) -> None:
    """Ask every process of its group to end, so that shared memory is given back, and after `grace_s` make them.

    What runs commands of its own in this way needs longer than those, or they would be left behind.
    """
    deadline_s = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                _bury(process.pid)
            os.killpg(process.pid, 0)
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Processes whose parents have ended become this one's children, so that their time is counted."""
    prctl = getattr(_LIBC, "prctl", None)
    if prctl:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        if prctl:
            prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _bury(group: int) -> None:
    """Wait for those of the group that have ended and are this process's children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def last_said(*outputs: str) -> str:
    """The last line that is not empty, of the first of these that has one."""
    lines = (line.strip() for text in outputs for line in reversed(text.splitlines()) if line.strip())
    return next(lines, "it said nothing")
