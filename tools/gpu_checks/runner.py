"""Runs the parts one after the other, each in a process of its own: what fails or hangs is noted, the next goes on."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..benchmarks.process import GRACE_S, CommandFailed, run, shown
from ..benchmarks.rounds import code_sha256
from ..benchmarks.side_by_side import Say
from . import needed
from .found import LOG
from .part import Finding, Part, Setting
from .record import Outcome, Record

_HEARTBEAT_S = 30.0
_LOG_LINES = 60
_TELLING_S = 45.0  # what a part that is ended gets to report what it has finished
_GRACE_S = 3 * GRACE_S  # to end what it runs, which may run something itself


@dataclass(frozen=True)
class Chosen:
    """What a call runs.

    todo      parts by name, in the order in which they run
    done      those that ended well on this very code before
    missing   those that cannot run here, and why
    no_time   those for which the minutes do not suffice
    failed    those that failed on this very code before, and are not asked for again
    """

    todo: dict[str, Part]
    done: list[str]
    missing: dict[str, tuple[Part, str]]
    no_time: list[str]
    failed: list[str] = field(default_factory=list)


def choose(parts: Mapping[str, Part], record: Record, setting: Setting, minutes: float, retry: bool = False) -> Chosen:
    """Those that fit into so many minutes, the first first; what was tried before waits for what was not.

    retry  those that failed on this very code, too
    """
    ended = {name: record.status(name, code_sha256(part.code)) for name, part in parts.items()}
    done = [name for name in parts if ended[name] == "done"]
    failed = [name for name in parts if ended[name] == "failed" and not retry]
    left = [name for name in parts if name not in done and name not in failed]
    missing = {name: (parts[name], why) for name in left if (why := why_missing(name, parts[name], setting))}
    left = [name for name in left if name not in missing]
    left.sort(key=lambda name: _TRIED.get(ended[name], 0))  # stable: else their order stays
    todo: dict[str, Part] = {}
    no_time = []
    for name in left:
        if parts[name].minutes <= minutes:
            minutes -= parts[name].minutes
            todo[name] = parts[name]
        else:
            no_time.append(name)
    return Chosen(todo, done, missing, no_time, failed)


def why_missing(name: str, part: Part, setting: Setting) -> str:
    """Why the part cannot run here, or ""."""
    return needed.why_not(name, needed.absent()) or part.missing(setting)


_TRIED = {"unfinished": 1, "failed": 2}


def run_all(
    chosen: Chosen, record: Record, setting: Setting, minutes: float, say: Say, keep: Callable[[], None]
) -> None:
    """Run what is chosen; `keep` is called after each part, when `record` has its outcome.

    No part runs on when all minutes are over: what then still runs is ended, and unfinished.
    """
    started_s = time.monotonic()
    deadline_s = started_s + 60 * minutes
    for name, (part, why) in chosen.missing.items():
        record.leave_out(name, part.title, why)
    for count, (name, part) in enumerate(chosen.todo.items(), 1):
        left_s = deadline_s - time.monotonic()
        limit_s = min(part.limit_s, left_s - _TELLING_S * part.goes_on)
        if limit_s <= 0:
            chosen.no_time.append(name)
            say(f"{name}: left out, the time is over")
            continue
        place = f"[{count} of {len(chosen.todo)}] {name}:"
        say(f"{place} {part.title}; about {part.minutes:g} min, {left_s / 60:.1f} left for all")
        outcome = run_part(name, part, setting, limit_s, say)
        record.parts[name] = replace(outcome, commit=record.machine["commit"])
        say(f"{place} {outcome.status} after {outcome.seconds:,.0f} s" + (f": {outcome.note}" if outcome.note else ""))
        for finding in outcome.findings:
            say(f"    {finding.what}: {finding.figure}" if finding.what else f"    {finding.figure}")
        keep()
    keep()


def run_part(name: str, part: Part, setting: Setting, limit_s: float, say: Say) -> Outcome:
    """Its outcome; whatever happens to its process happens to it alone."""
    folder = setting.work / "parts" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = list(part.command(setting, folder))
    begun = Outcome(part.title, "done", command=shown(command), code_sha256=code_sha256(part.code))
    started_s = time.monotonic()
    findings: list[Finding] = []
    with _heartbeat(folder, say):
        status, note = _ended(part, command, folder, limit_s)
    try:
        findings = list(part.findings(folder))
    except Exception as error:  # results that cannot be read must not cost the other parts theirs
        if not note:
            status = "failed"
            note = f"its results cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
    return replace(
        begun,
        status=status,
        note=note,
        seconds=round(time.monotonic() - started_s, 1),
        ended=datetime.now().isoformat(timespec="seconds"),
        findings=findings,
        log=_end_of_log(folder) if note else "",
        measured=_measured(folder),
    )


def _ended(part: Part, command: Sequence[str], folder: Path, limit_s: float) -> tuple[str, str]:
    """Run the part's command; the status of its outcome, and why it is not "done"."""
    try:
        run(command, folder / "part.log", limit_s, grace_s=_GRACE_S)
    except CommandFailed as error:
        if part.tells_what_is_not_kept and not error.is_late and _measured(folder) is not None:
            return "done", ""  # its findings say so
        if not error.is_late:
            return "failed", error.how
        if part.goes_on:
            with suppress(CommandFailed):  # then nothing is finished that could be told
                run([*command, "--finished-only"], folder / "finished.log", _TELLING_S, grace_s=_GRACE_S)
        # what stood still for all of its own time would do so again
        status = "unfinished" if part.goes_on or limit_s < part.limit_s else "failed"
        return status, f"ended after {limit_s:,.0f} s, its limit here"
    return "done", ""


def _measured(folder: Path) -> Any:
    """The contents of the file of JSON among its results; None where there is none."""
    with suppress(OSError, ValueError):
        for path in sorted(folder.glob("*.json")):
            return json.loads(path.read_text())
    return None


def _end_of_log(folder: Path) -> str:
    """Of both its outputs."""
    told = []
    for name in (LOG, "part.log"):
        with suppress(OSError):
            lines = (folder / name).read_text(errors="replace").splitlines()
            told += [f"-- {name}", *lines[-_LOG_LINES:]]
    return "\n".join(told)


@contextmanager
def _heartbeat(folder: Path, say: Say) -> Iterator[None]:
    """While the block lasts, say now and then what the part printed last."""
    ended = threading.Event()

    def tell() -> None:
        last = ""
        while not ended.wait(_HEARTBEAT_S):
            with suppress(OSError):
                lines = (folder / LOG).read_text(errors="replace").splitlines()
                if lines and lines[-1] != last:
                    last = lines[-1]
                    say(f"    … {last}")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
