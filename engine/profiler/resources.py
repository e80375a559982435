"""Processor, memory and GPU use of a run: of this process and its workers."""

from dataclasses import dataclass

import torch

from loaders.cpus import available_cpus

from .family import Family


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
        self._family = Family(device)
        self._family.begin()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Note the GPU's utilisation since it was noted last. About a millisecond."""
        self._family.sample()

    def read(self) -> Resources:
        """Of the span so far; it goes on."""
        used = self._family.end()
        on_gpu = self._device.type == "cuda"
        return Resources(
            cpu_share=used.cpu_s / (used.seconds * available_cpus()),
            memory_bytes=used.memory_bytes,
            gpu_share=used.gpu_share,
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self._device) if on_gpu else None,
        )
