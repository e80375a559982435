"""Work of a device's stream is noted when it is over and never waited for. The device here is a stand-in."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from loaders import stream_spans
from loaders.stage_times import Delay, StageTimes
from loaders.stage_writer import UNTIMED
from loaders.stream_spans import StreamSpans, spanning

CYCLES_PER_MS = 1_000_000
SECOND = torch.device("cuda", 1)  # need not be the current one


class Device:
    """A stream that does what it is given, later: `asked_ms` is where its work ends, `now_ms` how far it has come."""

    asked_ms = 0.0
    now_ms = 0.0
    waits = 0

    def work(self, duration_ms):
        self.asked_ms = max(self.asked_ms, self.now_ms) + duration_ms

    def event(self, enable_timing):
        assert enable_timing
        device = self

        class Event:
            def record(self, stream):
                self.at_ms = device.asked_ms

            def query(self):
                return device.now_ms >= self.at_ms

            def elapsed_time(self, later):
                assert later.query()
                return later.at_ms - self.at_ms

            def synchronize(self):
                device.waits += 1
                device.now_ms = max(device.now_ms, self.at_ms)

        return Event()


@pytest.fixture
def device(monkeypatch):
    made, asked = Device(), []
    cuda = SimpleNamespace(
        Event=made.event,
        current_stream=asked.append,
        device=lambda device: nullcontext(),
        _sleep=lambda cycles: made.work(cycles / CYCLES_PER_MS),
    )
    monkeypatch.setattr(stream_spans, "torch", SimpleNamespace(cuda=cuda, device=torch.device))
    stream_spans.cycles_per_s.cache_clear()
    yield made
    stream_spans.cycles_per_s.cache_clear()
    assert set(asked) <= {SECOND, torch.device("cuda")}


def test_what_is_over_is_noted_with_the_devices_time_and_nobody_waits(device):
    times = StageTimes(1)
    spans = StreamSpans(times.writer(0), "copy", SECOND)
    for _ in range(3):
        with spans.span(4):
            device.work(8.0)
    assert times.read() == {} and device.waits == 0
    device.now_ms = 17.0  # two are over
    spans.collect()
    reading = times.read()["copy"]
    assert reading.count == 8 and reading.wall_s == pytest.approx(0.016)
    assert reading.quantile_s(0.5) == pytest.approx(0.002, rel=0.125) and reading.cpu_s < 0.016
    device.now_ms = 30.0
    with spans.span(4):  # the next looks, too
        device.work(8.0)
    assert times.read()["copy"].count == 12 and device.waits == 0


@pytest.mark.parametrize("kind", ["sleep", "spin"])
def test_a_delay_keeps_the_device_busy_for_its_images(device, kind):
    times = StageTimes(1, {"copy": Delay(kind, 0.005)})
    spans = StreamSpans(times.writer(0), "copy", SECOND)
    for images in (4, 0):  # 0: counted, and delayed, elsewhere
        with spans.span(images):
            device.work(1.0)
    device.now_ms = 1000.0
    spans.collect()
    reading = times.read()["copy"]
    assert reading.count == 4 and reading.wall_s == pytest.approx(4 * 0.005 + 0.002, rel=0.001)


def test_cycles_of_a_gpu():
    assert stream_spans.cycles_for(0.5, 2e9) == 10**9 and stream_spans.cycles_for(1e-12, 1e9) == 1


def test_without_stage_times_no_event_is_made(monkeypatch):
    monkeypatch.setattr(stream_spans, "torch", None)
    with StreamSpans(UNTIMED, "copy", SECOND).span(4):
        pass


def test_each_kind_of_device_is_timed_by_what_can_be_known_of_it(device):
    times = StageTimes(1)
    for kind in ("cpu", "meta"):
        with spanning(times.writer(0), "augment", torch.device(kind))(1 if kind == "cpu" else 10):
            pass
    assert times.read()["augment"].count == 1  # of other devices nobody sees when they are done
    with spanning(times.writer(0), "augment", torch.device("cuda"))(2):
        device.work(1.0)
    assert times.read()["augment"].count == 1  # under way
