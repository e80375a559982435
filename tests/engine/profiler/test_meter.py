import pytest
import torch
from moved_clock import MovedClock

from engine.profiler import meter as meter_module
from engine.profiler.meter import Meter
from loaders.api import Batch


@pytest.fixture
def clock(monkeypatch):
    clock = MovedClock()
    monkeypatch.setattr(meter_module, "time", clock)
    return clock


def _batches(clock, waits, num_valid=8):
    for wait in waits:
        clock.now += wait
        yield Batch(torch.empty(8, 3, 1, 1), torch.empty(8), torch.empty(8), num_valid)


def test_waiting_and_working_are_told_apart(clock):
    meter = Meter()
    for _ in meter.timed(_batches(clock, [5.0, 1.0, 1.0])):
        clock.now += 3.0
    reading = meter.read()
    assert reading.seconds == 16.0
    assert reading.wait_s == 7.0
    assert reading.first_batch_s == 5.0
    assert reading.images_per_s == 24 / 16
    assert reading.data_wait_share == 7 / 16


def test_the_first_batch_and_the_first_step_stand_apart_from_the_steady_speed(clock):
    meter = Meter()
    works = iter([20.0, 3.0, 3.0])  # the first step compiles
    for _ in meter.timed(_batches(clock, [5.0, 1.0, 1.0])):
        clock.now += next(works)
    reading = meter.read()
    assert (reading.first_batch_s, reading.first_step_s) == (5.0, 20.0)
    assert reading.images_per_s == 24 / 33
    assert reading.steady_images_per_s == 16 / 8
    assert reading.since(reading).steady_images_per_s is None


def test_one_batch_alone_has_no_steady_speed(clock):
    meter = Meter()
    list(meter.timed(_batches(clock, [5.0])))
    assert meter.read().steady_images_per_s is None


def test_padding_does_not_count_as_images(clock):
    meter = Meter()
    list(meter.timed(_batches(clock, [1.0, 1.0], num_valid=3)))
    assert meter.read().num_images == 6


def test_a_span_is_the_difference_of_two_readings(clock):
    meter = Meter()
    batches = meter.timed(_batches(clock, [5.0, 1.0]))
    next(batches)
    before = meter.read()
    next(batches)
    clock.now += 3.0
    span = meter.read().since(before)
    assert (span.seconds, span.wait_s, span.num_images, span.first_batch_s) == (4.0, 1.0, 8, 0.0)


def test_nothing_measured_is_zero_not_a_division_by_zero(clock):
    reading = Meter().read()
    assert reading.images_per_s == 0 and reading.data_wait_share == 0


def test_waiting_while_the_step_goes_on_elsewhere_costs_only_what_the_step_leaves(clock):
    step_s = 100.0  # of whoever used its clock before
    meter = Meter(lambda: step_s)
    for _ in meter.timed(_batches(clock, [5.0, 3.0, 3.0])):
        clock.now += 1.0
        step_s += 4.0
    reading = meter.read()
    assert (reading.seconds, reading.wait_s, reading.step_s) == (14.0, 11.0, 12.0)
    assert reading.data_wait_share == 2 / 14
    assert Meter(lambda: step_s).read().step_s == 0


def test_waiting_without_an_epochs_start(clock):
    meter = Meter()
    for _ in meter.timed(_batches(clock, [5.0, 1.0, 1.0])):
        clock.now += 3.0
    assert meter.read().steady_data_wait_share == 2 / 8
    only_first = Meter()
    for _ in only_first.timed(_batches(clock, [5.0])):
        clock.now += 3.0
    assert only_first.read().steady_data_wait_share is None
