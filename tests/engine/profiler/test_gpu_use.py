"""What is read of a GPU's use. NVML is a stand-in here: it samples by itself, and forgets what is long ago."""

from types import SimpleNamespace

import pytest
import torch

from engine.profiler import gpu_use
from engine.profiler.family import Family
from engine.profiler.gpu_use import GpuUse


class Refused(Exception):
    """NVML's."""


class Nvml:
    """Samples are (µs, %); `now` is what it says of the last moment."""

    NVML_GPU_UTILIZATION_SAMPLES = 1
    NVMLError = Refused
    samples = ()
    now = None

    def nvmlDeviceGetSamples(self, handle, kind, seen_us):
        if self.samples is None:
            raise Refused
        found = [
            SimpleNamespace(timeStamp=at_us, sampleValue=SimpleNamespace(uiVal=percent))
            for at_us, percent in self.samples
            if at_us >= seen_us
        ]
        return 1, found

    def nvmlDeviceGetUtilizationRates(self, handle):
        if self.now is None:
            raise Refused
        return SimpleNamespace(gpu=self.now)


@pytest.fixture
def nvml(monkeypatch):
    made = Nvml()
    monkeypatch.setattr(gpu_use, "pynvml", made)
    return made


def test_every_sample_of_the_span_counts_once_and_none_from_before_it(nvml):
    nvml.samples = [(100, 80), (200, 90)]
    use = GpuUse("a handle")
    nvml.samples += [(300, 100), (400, 0)]
    assert use.shares() == [1.0, 0.0]
    nvml.now = 50
    assert use.shares() == [0.5]  # none is new: that of the last moment
    nvml.samples += [(500, 30)]
    assert use.shares() == [0.3]


def test_a_gpu_without_samples_tells_its_last_moment_and_one_that_tells_nothing_is_not_idle(nvml):
    nvml.samples, nvml.now = None, 70
    assert GpuUse("a handle").shares() == [0.7]
    nvml.now = None
    assert GpuUse("a handle").shares() == [] == GpuUse(None).shares()


def test_a_long_span_has_what_was_noted_on_the_way_though_nvml_forgets_it(nvml, monkeypatch):
    monkeypatch.setattr("engine.profiler.family.gpu_handle", lambda device: "a handle")
    monkeypatch.setattr("engine.profiler.family.gpu_power_w", lambda handle: None)
    family = Family(torch.device("cpu"))
    family.begin()
    nvml.samples = [(100, 80), (200, 40)]
    family.sample()
    nvml.samples = [(300, 0)]
    assert family.end().gpu_share == pytest.approx(0.4) == family.end().gpu_share
