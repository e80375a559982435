"""trace.json: a profile's timeline in the format of Chrome's tracing, which Perfetto (ui.perfetto.dev) opens too.

Of that format ("Trace Event Format", Google) it holds complete events (ph X, times in microseconds) and the names of
processes and threads (ph M). A process is a rank. A thread is a side of the work; spans of one side that overlap, as
those of several workers do, get a thread each, because events of one thread must be nested or apart.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file

from ..number_text import plain
from ..record import Profile, Span
from .report_rows import group_of

_SIDES = ("data", "copy", "compute", "other")  # from above to below

Event = dict[str, Any]


def write_trace(path: Path, profile: Profile) -> None:
    """Put the timeline at `path`, which is whole at every moment."""
    content = {
        "traceEvents": trace_events(profile),
        "displayTimeUnit": "ms",
        "otherData": {"model": plain(profile.subject.model), "data": plain(profile.subject.path)},
    }
    with atomic_file(path) as file:
        file.write(json.dumps(content, allow_nan=False).encode() + b"\n")


def trace_events(profile: Profile) -> list[Event]:
    """Names first, then one event a span."""
    events: list[Event] = []
    for record in profile.ranks:
        spans = [span for span in profile.timeline if span.rank == record.rank]
        events.append(_name("process_name", record.rank, 0, f"rank {record.rank} on {plain(record.host)}"))
        threads = [(side, lane) for side in _SIDES for lane in lanes(spans, side)]
        for number, (side, lane) in enumerate(threads, start=1):
            events.append(_name("thread_name", record.rank, number, side))
            events += [_event(span, side, number) for span in lane]
    return sorted(events, key=lambda event: event["ph"] != "M")


def lanes(spans: Sequence[Span], side: str) -> list[list[Span]]:
    """The spans of one side, in as few rows as there are at once, each without overlap and in order."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        if group_of(span.stage) != side:
            continue
        free = (row for row in rows if row[-1].start_s + row[-1].seconds <= span.start_s)
        row = next(free, None)
        if row is None:
            rows.append(row := [])
        row.append(span)
    return rows


def _event(span: Span, side: str, thread: int) -> Event:
    # in whole nanoseconds, start and end alike, or rounding would make neighbours overlap
    start_ns, end_ns = round(span.start_s * 1e9), round((span.start_s + span.seconds) * 1e9)
    return {
        "name": plain(span.stage),
        "cat": side,
        "ph": "X",
        "ts": start_ns / 1e3,
        "dur": (end_ns - start_ns) / 1e3,
        "pid": span.rank,
        "tid": thread,
        "args": {"step": span.step},
    }


def _name(kind: str, process: int, thread: int, text: str) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": text}}
