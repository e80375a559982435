"""DALI on a GPU in name: its pipeline of a GPU, built of the operators of the processor."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from .tensors import NominalCuda


@contextmanager
def dali_in_name(mode: NominalCuda) -> Iterator[None]:
    """Within the block loader `dali` works on the GPU in name: it decodes whole images, holds what it has handed out,
    and mends batches as on a GPU. DALI's kernels for one are not among it."""
    from loaders.dali_graph import Graph, RunningGraph  # which not every machine has

    take = RunningGraph.take

    def taken(running: RunningGraph) -> torch.Tensor:
        images = take(running)
        return mode.own(images) if running._graph.device.type == "cuda" else images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graph, "on_gpu", False)
        patch.setattr(RunningGraph, "take", taken)
        yield
