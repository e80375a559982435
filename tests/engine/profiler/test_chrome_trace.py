import json
from dataclasses import replace
from itertools import pairwise

import pytest
from shown_profiles import bare, full

from engine.profiler.record import Span
from engine.profiler.reports.chrome_trace import trace_events, write_trace


def complete(events):
    return [event for event in events if event["ph"] == "X"]


def test_the_file_is_json_with_every_span_in_microseconds(tmp_path):
    write_trace(tmp_path / "trace.json", full())

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "trace.json").read_text(), parse_constant=refuse)
    found = sorted(complete(content["traceEvents"]), key=lambda event: (event["pid"], event["ts"]))
    wanted = sorted(full().timeline, key=lambda span: (span.rank, span.start_s))
    assert len(found) == len(wanted) == 56
    for event, span in zip(found, wanted, strict=True):
        assert (event["pid"], event["name"], event["args"]["step"]) == (span.rank, span.stage, span.step)
        assert event["ts"] == pytest.approx(span.start_s * 1e6, abs=1e-3)
        assert event["dur"] == pytest.approx(span.seconds * 1e6, abs=2e-3)


def test_events_hold_what_the_format_asks_for():
    for event in trace_events(full()):
        assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["cat"] in ("data", "copy", "compute", "other")
        else:
            assert event["ph"] == "M" and event["name"] in ("process_name", "thread_name") and event["args"]["name"]


def test_every_thread_and_process_has_one_name():
    events = trace_events(full())
    names = [(e["pid"], e["tid"], e["name"]) for e in events if e["ph"] == "M"]
    assert len(names) == len(set(names))
    assert {(pid, tid) for pid, tid, name in names if name == "thread_name"} == {
        (e["pid"], e["tid"]) for e in complete(events)
    }
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {
        "rank 0 on node-0",
        "rank 1 on node-1",
    }


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_spans_of_workers_at_once_get_a_thread_each_and_no_more_are_made(num_workers):
    spans = tuple(
        Span("decode", 0, step, start_s=step / num_workers, seconds=1 - 1e-9) for step in range(4 * num_workers)
    )
    events = complete(trace_events(replace(full(), timeline=spans)))
    assert len(events) == len(spans) and len({event["tid"] for event in events}) == num_workers
    for thread in {event["tid"] for event in events}:
        own = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["tid"] == thread)
        assert all(end <= start for (_, end), (start, _) in pairwise(own))


def test_a_stage_of_another_name_is_kept():
    profile = replace(full(), timeline=(Span("log\x1b", 0, 1, 0.5, 0.25),))
    (event,) = complete(trace_events(profile))
    assert event["cat"] == "other" and event["name"] == "log�"


def test_without_a_timeline_there_are_names_alone():
    assert [event["ph"] for event in trace_events(bare())] == ["M"]
