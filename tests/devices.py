"""Tests that run on the CPU, and once more on a GPU where there is one: so their code has been executed everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
on_each_device = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=on_a_gpu)], ids=lambda d: d.type)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Within the block, whatever makes the host wait for a GPU raises RuntimeError; on a CPU nothing does."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def keep_busy(device: torch.device) -> None:
    """Give a GPU some milliseconds of work and do not wait for it: what is asked of it next comes late."""
    if device.type == "cuda":
        torch.cuda._sleep(20_000_000)
