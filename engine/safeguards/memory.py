"""Running out of memory: how it is recognised, and how much there is."""

import gc
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from loaders.errors import FeedrateError
from loaders.memory_limit import available_memory_bytes

Result = TypeVar("Result")
# where no plan of a convolution finds its workspace
_NO_ENGINE = "unable to find an engine to execute this computation"
# what torch says where it raises a plain RuntimeError
_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    _NO_ENGINE,
    "CUDA error: out of memory",  # outside torch's own allocator, as where a kernel is loaded
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class OutOfMemory(FeedrateError):
    """Memory did not suffice; the message says for what."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's or the processor's memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def within_memory(work: Callable[[], Result], told: Callable[[], str]) -> Result:
    """What `work` returns. Raises OutOfMemory with what `told` returns where memory does not suffice."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        doubt = f"; torch said '{_NO_ENGINE}', which can have other reasons" if _NO_ENGINE in str(error) else ""
    # after the handler, since the traceback held what was computed so far
    raise OutOfMemory(told() + doubt)


def release_memory(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_in_use(device: torch.device) -> str:
    """How much is in use and how much there is, in words: of a GPU by all that runs on it, else by this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{gigabytes(total - free)} of the {gigabytes(total)} of {device} are in use"
    available = available_memory_bytes()
    left = "" if available is None else f" and {gigabytes(available)} are left"
    return f"this process uses {gigabytes(psutil.Process().memory_info().rss)}{left}"


def gigabytes(num_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{num_bytes / 1e9:.2f} GB"
