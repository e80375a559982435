"""Kernels that give the same bits each time: asking torch for them alone, and what to say where it has none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loaders.errors import FeedrateError

_TORCH_REFUSES = " does not have a deterministic implementation"


def use_deterministic_kernels() -> None:
    """From here on, in this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # or torch would fill all memory it takes, which finds mistakes and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def told_where_there_is_none() -> Iterator[None]:
    """Where torch refuses an operator since none of its kernels is deterministic, raise FeedrateError that names it."""
    try:
        yield
    except RuntimeError as error:
        operator, refusal, _ = str(error).partition(_TORCH_REFUSES)
        if not refusal:
            raise
        raise FeedrateError(
            f"--execution.deterministic is on and {operator.split()[-1]}, which this model needs, has no deterministic"
            " kernel on this device: train without that option, or another model"
        ) from error
