"""What is noted of turns of the loop, whose step and loader are made up."""

import time
from types import SimpleNamespace

import pytest
import torch

from engine.profiler.loop_watch import LoopWatch
from engine.profiler.planted_delays import delayed_clock
from engine.profiler.step_clock import HostClock, NoClock
from loaders.api import Batch
from loaders.stage_times import Delay, StageReading

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PIXELS = (2, 3, 4, 4)  # of a batch


class Watched:
    """A watch, and what it looks on at. `readings` is what the loader's stages took at each look, the first first."""

    def __init__(self, device=CPU, clock=None, readings=({}, {}), resizes_on_device=False):
        self.step = SimpleNamespace(clock=clock or HostClock(), normalize=SimpleNamespace(device=device))
        times = SimpleNamespace(read=iter(readings * 10).__next__, elapsed_s=dict)
        self.feed = SimpleNamespace(
            loader=object(), stage_times=times, first_batch_s=[0.5], resizes_on_device=resizes_on_device
        )
        family = SimpleNamespace(begin=lambda: None, end=lambda: None)
        self.watch = LoopWatch(self.feed, self.step, family, rank=0)

    def turn(self, num_batches, seconds=0.0):
        """One of so many batches, the step's forward taking so long."""
        batch = Batch(torch.zeros(PIXELS, dtype=torch.uint8), torch.zeros(2), torch.zeros(2), 2)
        self.watch.begin()
        for _ in self.watch.watched(iter([batch] * num_batches)):
            with self.step.clock.span("forward"):
                if seconds:  # even sleeping for no time lets others run
                    time.sleep(seconds)
        self.watch.end(1.0)
        return self.watch.turns[-1]


@pytest.fixture
def gpu(monkeypatch):
    """Memory of a GPU, as torch tells it."""
    memory = SimpleNamespace(peak=9 * 10**9)

    def reset(device):
        memory.peak = 10**9

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: memory.peak)
    return memory


def test_quantiles_of_the_step_are_of_the_loop_alone_and_not_of_what_else_its_clock_timed():
    looked_on = Watched()
    clock = looked_on.step.clock
    for _ in range(600):  # such as the step alone
        with clock.span("forward"):
            pass
    forward = looked_on.turn(3, seconds=0.2).step["forward"]
    assert forward.count == 3 and min(forward.quantiles_s) >= 0.2
    assert looked_on.step.clock is clock and clock.read()["forward"].count == 603
    assert looked_on.turn(3).step["forward"].quantiles_s[2] >= 0.16  # all turns of the loop together
    looked_on.watch.turns.clear()
    assert looked_on.turn(3).step["forward"].quantiles_s[2] < 0.16  # what is forgotten does not count


def test_delays_that_the_steps_clock_puts_into_stages_are_seen():
    looked_on = Watched(clock=delayed_clock(HostClock(), {"forward": Delay("sleep", 0.005)}, 2, CPU))
    assert looked_on.turn(2).step["forward"].wall_s >= 2 * 0.01


def test_first_batches_are_those_of_the_turn():
    assert Watched().turn(2).first_batches_s == (0.5,)


def test_on_a_cpu_a_timeline_shows_waiting_and_stages_and_on_a_gpu_there_is_none(gpu):
    on_cpu = Watched()
    on_cpu.turn(2)
    assert [span.stage for span in on_cpu.watch.timeline.spans] == ["data wait", "forward"] * 2
    on_gpu = Watched(GPU, NoClock())
    on_gpu.watch.begin()
    assert list(on_gpu.watch.watched(iter([Batch(torch.zeros(PIXELS), torch.zeros(2), torch.zeros(2), 2)])))
    on_gpu.watch.end(1.0)
    assert on_gpu.watch.timeline.spans == [] and len(on_gpu.watch.turns[0].waits_s) == 1


def test_the_peak_of_a_gpus_memory_is_the_turns_own(gpu):
    on_gpu = Watched(GPU, NoClock())
    on_gpu.watch.begin()
    gpu.peak = max(gpu.peak, 3 * 10**9)
    on_gpu.watch.end(1.0)
    assert on_gpu.watch.turns[0].peak_bytes == 3 * 10**9
    assert Watched().turn(1).peak_bytes is None


def test_bytes_are_copied_where_a_loader_shows_it_and_hands_out_what_it_copied():
    before, after = (StageReading(count, 0.1, count, 0.1, (0,) * 256) for count in (10, 14))
    copying = ({"copy": before}, {"copy": after})
    assert Watched(readings=copying).turn(2).copied_bytes == 2 * 2 * 3 * 4 * 4
    assert Watched(readings=copying, resizes_on_device=True).turn(2).copied_bytes is None
    assert Watched(readings=({"copy": before},) * 2).turn(2).copied_bytes is None
    assert Watched().turn(2).copied_bytes is None
