"""Runs the parts one after the other, each in a process of its own: what fails or hangs is noted, the next goes on."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..benchmarks.process import CommandFailed, run, shown
from ..benchmarks.rounds import code_sha256
from ..benchmarks.side_by_side import Say
from .found import LOG
from .part import Part, Setting
from .record import Outcome, Record

_HEARTBEAT_S = 30.0
_LOG_LINES = 60


@dataclass(frozen=True)
class Chosen:
    """What a call runs.

    todo      parts by name, in the order in which they run
    done      those that ended well on this very code before
    missing   those that cannot run here, and why
    no_time   those for which the minutes do not suffice
    """

    todo: dict[str, Part]
    done: list[str]
    missing: dict[str, tuple[Part, str]]
    no_time: list[str]


def choose(parts: Mapping[str, Part], record: Record, setting: Setting, minutes: float) -> Chosen:
    """Those that fit into so many minutes, the first first; one that failed before waits for those not yet tried."""
    done = [name for name, part in parts.items() if record.is_done(name, code_sha256(part.code))]
    missing = {name: (part, why) for name, part in parts.items() if name not in done and (why := part.missing(setting))}
    left = [name for name in parts if name not in done and name not in missing]
    left.sort(key=lambda name: _has_failed(name, record, parts[name]))  # stable: else their order stays
    todo: dict[str, Part] = {}
    no_time = []
    for name in left:
        if parts[name].minutes <= minutes:
            minutes -= parts[name].minutes
            todo[name] = parts[name]
        else:
            no_time.append(name)
    return Chosen(todo, done, missing, no_time)


def _has_failed(name: str, record: Record, part: Part) -> bool:
    outcome = record.parts.get(name)
    return outcome is not None and outcome.status == "failed" and outcome.code_sha256 == code_sha256(part.code)


def run_all(
    chosen: Chosen, record: Record, setting: Setting, minutes: float, say: Say, keep: Callable[[], None]
) -> None:
    """Run what is chosen; `keep` is called after each part, when `record` has its outcome.

    No part runs on when all minutes are over: what then still runs is ended, and counts as failed.
    """
    started_s = time.monotonic()
    deadline_s = started_s + 60 * minutes
    for name, (part, why) in chosen.missing.items():
        record.parts[name] = Outcome(part.title, "left out", why)
    for count, (name, part) in enumerate(chosen.todo.items(), 1):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            chosen.no_time.append(name)
            say(f"{name}: left out, the time is over")
            continue
        place = f"[{count} of {len(chosen.todo)}] {name}:"
        say(f"{place} {part.title}; about {part.minutes:g} min, {left_s / 60:.1f} left for all")
        outcome = run_part(name, part, setting, min(part.limit_s, left_s), say)
        record.parts[name] = outcome
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
    note, findings = "", []
    with _heartbeat(folder, say):
        try:
            run(command, folder / "part.log", limit_s)
        except CommandFailed as error:
            note = f"ended after {limit_s:,.0f} s, its limit here" if error.is_late else error.how
    try:
        findings = list(part.findings(folder))
    except Exception as error:  # results that cannot be read must not cost the other parts theirs
        note = note or f"its results cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
    return replace(
        begun,
        status="failed" if note else "done",
        note=note,
        seconds=round(time.monotonic() - started_s, 1),
        ended=datetime.now().isoformat(timespec="seconds"),
        findings=findings,
        log=_end_of_log(folder) if note else "",
        measured=_measured(folder),
    )


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
