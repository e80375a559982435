"""A GPU in name: tensors of the host's that say they lie on cuda:0. Code for CUDA runs on it where there is none.

Refused, as torch or its debug mode refuses it:

* operations that mix tensors of both devices, but for those that torch lets pass;
* what makes the host wait for the device, where `torch.cuda.set_sync_debug_mode("error")` says so: reading values,
  moving them, and indices and operations that need them (`tensors`), but not waits within torch's own Python functions.
  Copies out of pageable memory are among it, which that mode of torch's overlooks.

Made to come out wrong, as it can on a GPU:

* a copy on a side stream is done as late as may be: when a stream or the host waits for it. Who reads before finds
  bytes of `UNWRITTEN`, and host memory that is written before is copied as it is then;
* memory of a side stream that another stream reads without `record_stream` is an AssertionError.

A copy on the default stream is done when asked for: page-locked memory that is written too early after it is not seen.

Arithmetic is the CPU's, to the bit, and DALI's operators are those for a processor (`dali`). Kernels, memory, speed,
code that torch compiles, NCCL, and what torch does below its Python functions are not told from the CPU's, or do not
run at all.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .streams import GPU, HOST, Event, Stream, synchronize_all
from .streams import entered as _entered
from .tensors import UNWRITTEN, NominalCuda, on_gpu, record_stream

__all__ = ["GPU", "UNWRITTEN", "NominalCuda", "entered", "nominal_cuda"]
_MEMORY_BYTES = 8 << 30


def entered() -> NominalCuda | None:
    """The GPU in name that torch sees; None where it sees a real one, or none."""
    return _entered[-1] if _entered else None


@contextmanager
def nominal_cuda() -> Iterator[NominalCuda]:
    """Within the block there is a GPU, in this thread and those that it starts, and `torch.cuda` speaks of it."""
    mode = NominalCuda()
    with pytest.MonkeyPatch.context() as patch, mode:
        for name, value in _torch_cuda(mode).items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(threading.Thread, "run", _run_within(mode))
        patch.setattr(torch.Tensor, "record_stream", record_stream)
        patch.setattr(torch.accelerator, "current_stream", lambda device=None: mode.stream)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        autocast, grouped = torch.autocast, torch._C._group_tensors_by_device_and_dtype
        patch.setattr(torch, "autocast", lambda device_type, *rest, **how: autocast("cpu", *rest, **how))
        patch.setattr(torch._C, grouped.__name__, lambda *given: _regrouped(grouped(*given)))
        _entered.append(mode)
        try:
            yield mode
        finally:
            _entered.pop()


def _run_within(mode: NominalCuda) -> Callable[[threading.Thread], None]:
    run = threading.Thread.run

    def run_within(thread: threading.Thread) -> None:
        with mode:
            run(thread)

    return run_within


def _regrouped(groups: dict[Any, Any]) -> dict[Any, Any]:
    """Optimizers, and what clips gradients, have torch ask below Python where tensors are."""
    found = {}
    for (_, dtype), group in groups.items():
        first = next(tensor for tensor in group[0][0] if tensor is not None)
        found[GPU if on_gpu(first) else HOST, dtype] = group
    return found


def _torch_cuda(mode: NominalCuda) -> dict[str, Any]:
    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        before, mode.stream = mode.stream, chosen
        try:
            yield
        finally:
            mode.stream = before

    def set_sync_debug_mode(debug_mode: str) -> None:
        mode.refuses_waiting = debug_mode == "error"

    properties = SimpleNamespace(name="in name", total_memory=_MEMORY_BYTES, uuid="none", L2_cache_size=50 << 20)
    memory = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: nullcontext(),
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "Stream": Stream,
        "Event": Event,
        "stream": stream,
        "current_stream": lambda device=None: mode.stream,
        "default_stream": lambda device=None: mode.default_stream,
        "synchronize": lambda device=None: synchronize_all(),
        "set_sync_debug_mode": set_sync_debug_mode,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (_MEMORY_BYTES // 2, _MEMORY_BYTES),
        "reset_peak_memory_stats": lambda device=None: None,
        **dict.fromkeys(memory, lambda device=None: _MEMORY_BYTES // 4),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "_sleep": lambda cycles: mode.stream.delay(cycles),
    }
