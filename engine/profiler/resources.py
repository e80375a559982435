"""Processor, memory and GPU use of this process and its workers."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from loaders.cpus import available_cpus

try:
    import pynvml  # the module of the package nvidia-ml-py
except ImportError:  # the run goes on; what cannot be read stays None
    pynvml = None


@dataclass(frozen=True)
class Resources:
    """None stands for what cannot be read on this machine, never 0.

    cpu_share            processor time used, as a share of what the process may use, 0-1, with its workers
    memory_bytes         of this process and its workers, pages they share counted once
    gpu_share            NVML's utilisation: the share of time in which a kernel ran, 0-1, mean of its samples
    gpu_memory_bytes     the most that torch had allocated
    """

    cpu_share: float
    memory_bytes: int
    gpu_share: float | None
    gpu_memory_bytes: int | None


class ResourceMeter:
    """Reads resources over a span of time, from its making to `read`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._gpu = GpuUse(gpu_handle(device))
        self._process = psutil.Process()
        self._started = time.perf_counter()
        self._cpu_s = _cpu_seconds(self._family())
        self._gpu_samples: list[float] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Note the GPU's utilisation since it was noted last. About a millisecond."""
        self._gpu_samples += self._gpu.shares()

    def read(self) -> Resources:
        family = self._family()
        self.sample()
        elapsed = time.perf_counter() - self._started
        used = _cpu_seconds(family) - self._cpu_s
        samples = self._gpu_samples
        on_gpu = self._device.type == "cuda"
        return Resources(
            cpu_share=max(0.0, used) / max(1e-9, elapsed * available_cpus()),
            memory_bytes=sum(_memory_bytes(process) for process in family),
            gpu_share=sum(samples) / len(samples) if samples else None,
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
        )

    def _family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


def _cpu_seconds(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        with contextlib.suppress(psutil.Error):  # a worker may end while it is looked at
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _memory_bytes(process: psutil.Process) -> int:
    """Its share of memory: forked workers map their parent's pages, which plain RSS would count again."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.uss)
    except psutil.Error:
        return 0


def gpu_handle(device: torch.device) -> Any:
    """NVML's handle of a device; None where there is none."""
    if device.type != "cuda" or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        # torch and NVML number GPUs differently under CUDA_VISIBLE_DEVICES; the UUID is the same in both
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except (pynvml.NVMLError, AttributeError):
        return None


class GpuUse:
    """NVML's utilisation of the GPU with this handle: the share of time in which at least one kernel ran.

    NVML samples it by itself, some times a second, and keeps about a hundred samples. Only to ask for the last moment
    would favour the moments at which one asks, which are those after work.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._seen_us = 0
        self.shares()  # leaves out what was before

    def shares(self) -> list[float]:
        """Samples since the last call, 0-1; where NVML kept none, that of the last moment; [] where it says nothing."""
        if self._handle is None:
            return []
        with contextlib.suppress(pynvml.NVMLError):
            if kept := self._kept():
                return kept
        with contextlib.suppress(pynvml.NVMLError):
            return [pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100]
        return []

    def _kept(self) -> list[float]:
        _, samples = pynvml.nvmlDeviceGetSamples(self._handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, self._seen_us)
        new = [sample for sample in samples if sample.timeStamp > self._seen_us]
        self._seen_us = max((sample.timeStamp for sample in new), default=self._seen_us)
        return [sample.sampleValue.uiVal / 100 for sample in new]


def gpu_power_w(handle: Any) -> float | None:
    """What the GPU draws now, in watts."""
    if handle is None:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        return float(pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)
    return None
