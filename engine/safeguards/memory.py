"""Running out of memory: how it is recognised, and how much there is."""

import gc

import psutil
import torch

from loaders.memory_limit import available_memory_bytes

_CPU_ALLOCATOR_FAILED = "DefaultCPUAllocator: can't allocate memory"  # torch raises a plain RuntimeError there


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's or the processor's memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR_FAILED in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_in_use(device: torch.device) -> str:
    """How much is in use and how much there is, in words: of a GPU by all that runs on it, else by this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{gib(total - free)} of the {gib(total)} of {device} are in use"
    available = available_memory_bytes()
    left = "" if available is None else f" and {gib(available)} are left"
    return f"this process uses {gib(psutil.Process().memory_info().rss)}{left}"


def gib(num_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{num_bytes / 2**30:.2f} GiB"
