"""Tests that run on the CPU, and once more on a GPU where there is one: so their code has been executed everywhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from loaders import transfer

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
# tensors without content: where there is no GPU, a device of which whatever reads from it fails
META = torch.device("meta")
NOMINAL = "cuda in name"

on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, and one in name is none")
_NAMED = [CPU, pytest.param(CUDA, marks=on_a_gpu), pytest.param(NOMINAL, marks=without_a_gpu)]
on_each_device = pytest.mark.parametrize("device", _NAMED, ids=str, indirect=True)
on_each_real_device = pytest.mark.parametrize("device", _NAMED[:2], ids=str, indirect=True)
# what there is to be seen on a GPU alone
on_each_gpu = pytest.mark.parametrize("device", _NAMED[1:], ids=str, indirect=True)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Within the block, whatever makes the host wait for a GPU's stream raises RuntimeError; on a CPU nothing does.

    Waiting for an event is not seen: see what `keep_busy` returns.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class OnlySent(TorchFunctionMode):
    """Within `with OnlySent():`, what brings tensors from the host to another device otherwise than by
    `loaders.transfer.send` raises AssertionError: on CUDA the host may wait for that.

    So may `_copied`, which has no CUDA device before it.
    """

    _ALLOWED = (transfer.send.__code__, transfer._copied.__code__)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        is_from_host = len(devices) > 1 or (func is torch.tensor and devices != {"cpu"})
        if is_from_host and sys._getframe(1).f_code not in self._ALLOWED:
            raise AssertionError(f"{func} copies from the host to {sorted(devices - {'cpu'})}")
        return result


def keep_busy(device: torch.device, cycles: int = 20_000_000) -> torch.cuda.Event | None:
    """Give a GPU some milliseconds of work and do not wait for it: what is asked of it next comes late.

    Returns what is over when that work is; None on a CPU, which does nothing.
    """
    if device.type != "cuda":
        return None
    torch.cuda._sleep(cycles)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))
    return done
