import time

from engine.profiler.step_clock import HostClock, NoClock


def test_stages_are_counted_and_timed_apart():
    clock = HostClock()
    for _ in range(3):
        with clock.span("forward"):
            time.sleep(0.02)
        with clock.span("clip"):
            pass
    told = clock.read()
    assert (told["forward"].count, told["clip"].count) == (3, 3)
    assert told["forward"].wall_s >= 0.06 > 10 * told["clip"].wall_s
    p50, p90, p99 = told["forward"].quantiles_s
    assert 0.02 <= p50 <= p90 <= p99 <= told["forward"].wall_s


def test_a_reading_since_another_is_what_came_between():
    clock = HostClock()
    with clock.span("forward"):
        time.sleep(0.03)
    before = clock.read()["forward"]
    with clock.span("forward"):
        pass
    after = clock.read()["forward"]
    between = after.since(before)
    assert between.count == 1 and between.wall_s == after.wall_s - before.wall_s < 0.03
    assert after.since(None) == after


def test_where_nothing_can_be_told_nothing_is():
    clock = NoClock()
    with clock.span("forward"):
        pass
    assert clock.read() == {}
