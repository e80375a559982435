"""What NVML tells of a GPU."""

import contextlib
from typing import Any

import torch

try:
    import pynvml  # the module of the package nvidia-ml-py
except ImportError:  # the run goes on; what cannot be read stays None
    pynvml = None


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
