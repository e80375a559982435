import time

import pytest
import torch

from engine.profiler.step_clock import CudaClock, HostClock, NoClock, step_clock


def test_stages_are_counted_and_timed_apart():
    clock = HostClock()
    for _ in range(3):
        with clock.span("forward"):
            time.sleep(0.02)
        with clock.span("clip"):
            pass
    told = clock.read()
    assert (told["forward"].count, told["clip"].count) == (3, 3)
    # a busy machine may stop this process in the midst of one of them
    assert told["forward"].wall_s >= 0.06 and 10 * told["clip"].quantiles_s[0] < 0.02
    p50, p90, p99 = told["forward"].quantiles_s
    assert 0.02 <= p50 <= p90 <= p99 <= told["forward"].wall_s


def test_a_reading_since_another_is_what_came_between():
    clock = HostClock()
    with clock.span("forward"):
        time.sleep(0.3)
    before = clock.read()["forward"]
    with clock.span("forward"):
        pass
    after = clock.read()["forward"]
    assert clock.total_s() == after.wall_s
    between = after.since(before)
    assert between.count == 1 and between.wall_s == after.wall_s - before.wall_s < 0.3
    assert after.since(None) == after


def test_where_nothing_can_be_told_nothing_is():
    clock = NoClock()
    with clock.span("forward"):
        pass
    assert clock.read() == {} and clock.total_s() == 0


def test_each_kind_of_device_has_its_clock():
    kinds = {device: type(step_clock(device)) for device in ("cpu", "cuda", "mps")}
    assert kinds == {"cpu": HostClock, "cuda": CudaClock, "mps": NoClock}


class _Event:
    """Of a device that has passed those whose moments were asked for up to `passed`, one a second."""

    made, passed, now = 0, 0, 0

    def __init__(self, enable_timing):
        assert enable_timing
        _Event.made += 1

    def record(self):
        _Event.now += 1
        self.moment = _Event.now

    def query(self):
        return self.moment <= _Event.passed

    def elapsed_time(self, end):
        assert end.query(), "it would have to wait"
        return 1e3 * (end.moment - self.moment)


def test_a_gpus_spans_count_once_it_has_passed_them_and_their_events_are_used_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    clock = CudaClock()
    for _ in range(3):
        with clock.span("forward"), clock.span("inner"):
            pass
    assert clock.read() == {} and _Event.made == 12
    _Event.passed = 4  # all of the first pair of spans
    told = clock.read()
    assert {stage: (span.count, span.wall_s) for stage, span in told.items()} == {
        "inner": (1, 1.0),
        "forward": (1, 3.0),
    }
    _Event.passed = 100
    assert clock.total_s() == 3 * (1.0 + 3.0)
    with clock.span("forward"):
        pass
    assert _Event.made == 12 and clock.read()["forward"].count == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_spans_are_the_devices_time_and_the_host_does_not_wait():
    clock = CudaClock()
    torch.cuda._sleep(400_000_000)  # an idle device counts more slowly than one that has been busy for a while
    torch.cuda.synchronize()
    cycles = 200_000_000  # about a tenth of a second
    started = time.perf_counter()
    for stage in ("forward", "backward", "backward"):
        with clock.span(stage):
            torch.cuda._sleep(cycles)
    assert clock.total_s() == 0 and time.perf_counter() - started < 0.05
    torch.cuda.synchronize()
    waited = time.perf_counter() - started
    told = clock.read()
    assert told["backward"].count == 2 and told["backward"].wall_s == pytest.approx(2 * told["forward"].wall_s, rel=0.1)
    assert clock.total_s() == pytest.approx(waited, rel=0.1)
