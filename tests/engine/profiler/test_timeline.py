import time
from itertools import pairwise

from engine.profiler.step_clock import HostClock
from engine.profiler.timeline import Timeline


def test_the_first_steps_are_noted_one_stage_after_the_other_and_the_clock_goes_on():
    timeline, clock = Timeline(rank=1), HostClock()
    listening = timeline.listening(clock)
    with listening.span("forward"):
        pass  # before any step
    for _ in range(6):
        timeline.waited(0.001)
        for stage in ("prepare", "forward"):
            with listening.span(stage):
                time.sleep(0.005)
    spans = timeline.spans
    assert [(span.step, span.stage) for span in spans] == [
        (step, stage) for step in range(4) for stage in ("data wait", "prepare", "forward")
    ]
    assert {span.rank for span in spans} == {1}
    for before, after in pairwise(spans):
        assert before.start_s + before.seconds <= after.start_s + 0.0011  # the wait was said, not slept
    assert all(span.seconds >= 0.005 for span in spans if span.stage != "data wait")
    assert listening.read()["forward"].count == clock.read()["forward"].count == 7


def test_a_new_start_forgets_what_was_before():
    timeline = Timeline(rank=0)
    timeline.listening(HostClock())
    timeline.waited(0.0)
    timeline.start()
    assert timeline.spans == []
    timeline.listening(HostClock())
    timeline.waited(0.0)
    assert [span.step for span in timeline.spans] == [0]


def test_without_a_clock_to_listen_to_it_notes_no_waiting_either():
    timeline = Timeline(rank=0)
    timeline.waited(0.1)
    assert timeline.spans == []
