"""Delays planted in a step: within the span of their stage, as long as asked, and nowhere else."""

import time

import pytest
import torch
from short_runs import ONE_RANK, short_config

from engine.augment.normalize import IMAGENET_CHANNELS
from engine.build import build_step
from engine.profiler.planted_delays import DelayedClock, delayed_clock
from engine.profiler.record import CLOCKED_STAGES
from engine.profiler.step_clock import CudaClock, HostClock
from loaders.errors import FeedrateError
from loaders.stage_writer import Delay

CPU = torch.device("cpu")
IMAGES = 4


def walls_of(clock):
    return {stage: span.wall_s for stage, span in clock.read().items()}


def pass_all(clock):
    for stage in CLOCKED_STAGES:
        with clock.span(stage):
            pass


def test_a_delay_is_timed_as_its_stage_and_no_other_for_every_image():
    asked = []
    clock = DelayedClock(HostClock(), {"backward": Delay("sleep", 0.01)}, IMAGES, lambda *what: asked.append(what))
    pass_all(clock)
    assert asked == [(Delay("sleep", 0.01), IMAGES)]
    clock = delayed_clock(HostClock(), {"backward": Delay("sleep", 0.1)}, IMAGES, CPU)
    pass_all(clock)
    walls = walls_of(clock)
    assert list(walls) == list(CLOCKED_STAGES)
    assert walls["backward"] >= 0.4 > 0.2 > sum(walls.values()) - walls["backward"]
    assert clock.total_s() == sum(walls.values())


def test_it_comes_after_the_work_of_its_stage():
    order = []
    clock = DelayedClock(HostClock(), {"clip": Delay("spin", 1.0)}, 1, lambda *_: order.append("delay"))
    with clock.span("clip"):
        order.append("work")
    assert order == ["work", "delay"]


def test_sleeping_takes_no_processor_and_spinning_takes_as_much_as_asked():
    used = {}
    for kind in ("sleep", "spin"):
        clock = delayed_clock(HostClock(), {"forward": Delay(kind, 0.01)}, IMAGES, CPU)
        before = time.thread_time()
        with clock.span("forward"):
            pass
        used[kind] = time.thread_time() - before
    assert used["sleep"] < 0.01 and used["spin"] == pytest.approx(0.04, abs=0.01)


def test_delays_may_change_between_steps():
    clock = delayed_clock(HostClock(), {}, IMAGES, CPU)
    pass_all(clock)
    before = walls_of(clock)
    clock.delay("prepare", Delay("sleep", 0.1))
    pass_all(clock)
    assert walls_of(clock)["prepare"] >= before["prepare"] + 0.4
    clock.delay("prepare", None)
    clock.delay("prepare", None)  # there is none any more
    after = walls_of(clock)
    pass_all(clock)
    assert walls_of(clock)["prepare"] < after["prepare"] + 0.2


def test_what_cannot_be_planted_is_refused():
    with pytest.raises(FeedrateError, match=r"a step has no span 'foreward': did you mean forward\?.*known are prep"):
        delayed_clock(HostClock(), {"foreward": Delay("sleep", 1)}, 1, CPU)
    with pytest.raises(FeedrateError, match="no span 'sync'"):
        delayed_clock(HostClock(), {}, 1, CPU).delay("sync", Delay("sleep", 1))
    with pytest.raises(FeedrateError, match="0 images: at least 1"):
        delayed_clock(HostClock(), {}, 0, CPU)


def test_all_stages_of_a_real_step_obey_and_its_numbers_stay_the_same(tmp_path):
    """Every stage named here has a span there, and the step computes as without."""
    losses = []
    for delays in ({}, {stage: Delay("sleep", 0.02) for stage in CLOCKED_STAGES}):
        torch.manual_seed(0)
        step = build_step(short_config(tmp_path, tmp_path), ONE_RANK, 3, IMAGENET_CHANNELS, 10)
        step.clock = delayed_clock(step.clock, delays, 2, CPU)
        images = torch.arange(2 * 3 * 16 * 16, dtype=torch.int64).remainder(251).to(torch.uint8).view(2, 3, 16, 16)
        losses.append([step(images, torch.tensor([0, 1]), torch.tensor([4, 5]), number)[0].item() for number in (0, 1)])
    assert losses[0] == losses[1]
    assert all(wall_s >= 0.08 for wall_s in walls_of(step.clock).values())
    assert sorted(walls_of(step.clock)) == sorted(CLOCKED_STAGES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["sleep", "spin"])
def test_on_a_gpu_the_device_takes_the_delay_and_the_host_does_not_wait(kind):
    device = torch.device("cuda", 0)
    clock = delayed_clock(CudaClock(), {"forward": Delay(kind, 0.025)}, IMAGES, device)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for stage in ("prepare", "forward", "forward"):
        with clock.span(stage):
            pass
    assert time.perf_counter() - started < 0.05
    torch.cuda.synchronize()
    walls = walls_of(clock)
    assert walls["forward"] == pytest.approx(0.2, rel=0.1) and walls["prepare"] < 0.02
