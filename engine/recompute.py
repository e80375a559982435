"""Activation checkpointing: what blocks of a model compute is thrown away and computed again in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from loaders.errors import FeedrateError

from .models.mixed_in import mix_in


class _Recomputing:
    """Stands before a block's own class, so that copies of the model keep it and no name in it changes."""

    def forward(self: Any, *inputs: Any) -> Any:
        """What the block makes of `inputs`; while it trains, only `inputs` are kept for the backward pass."""
        own = super().forward  # type: ignore[misc]
        if not (self.training and torch.is_grad_enabled()):
            return own(*inputs)
        contexts = lambda: (nullcontext(), _buffers_set_aside(self))  # noqa: E731
        return checkpoint(own, *inputs, use_reentrant=False, context_fn=contexts)


def recompute_activations(model: nn.Module, name: str) -> None:
    """Make the blocks of `model` forget their activations: less memory for about a third more time, the same bits.

    Blocks are told by kind: the members, with parts of their own, of the outermost Sequentials. Raises FeedrateError,
    naming the model `name`, if it has none.
    """
    blocks = [block for sequence in _outermost_sequences(model) for block in sequence if any(block.children())]
    if not blocks:
        raise FeedrateError(
            f"model '{name}' has no sequence of blocks to recompute: leave out --execution.checkpoint-activations"
        )
    for block in blocks:
        mix_in(_Recomputing, block, "Recomputing")


def _outermost_sequences(module: nn.Module) -> Iterator[nn.Sequential]:
    if isinstance(module, nn.Sequential):
        yield module
        return
    for child in module.children():
        yield from _outermost_sequences(child)


@contextmanager
def _buffers_set_aside(block: nn.Module) -> Iterator[None]:
    """Copies stand in for all buffers: BatchNorm counts a batch when it is first computed, and not a second time."""
    owned = [(part, name, buffer) for part in block.modules() for name, buffer in part.named_buffers(recurse=False)]
    for part, name, buffer in owned:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in owned:
            setattr(part, name, buffer)
