"""Lookahead (Zhang et al. 2019) as airbench has it (Jordan 2024): what the weights are set back to, by and by more."""

from typing import Any

import torch
from torch import nn

from .average import tensors_of
from .optim_config import OptimConfig


class Lookahead:
    """Slow weights: every so many updates they move towards the weights, which are then set to them; at the end of the
    run they are set to them as they are.

    How much of themselves they keep grows with the cube of the run's progress, up to `lookahead_share` at its end: at
    first it changes nothing, at last it is an average. Buffers that are no counts, as running statistics, go with them.
    """

    def __init__(self, model: nn.Module, config: OptimConfig, num_updates: int) -> None:
        self._every = config.lookahead_every_updates
        self._share = config.lookahead_share
        self._num_updates = num_updates
        self._fast = {name: tensor for name, tensor in tensors_of(model) if tensor.is_floating_point()}
        self._slow: dict[str, torch.Tensor] = {}  # from the first update on

    @torch.no_grad()
    def after_update(self, update: int) -> None:
        """To be called after each update, with its number. The host waits for nothing."""
        if not self._every:
            return
        if not self._slow:
            self._slow = {name: tensor.detach().clone() for name, tensor in self._fast.items()}
        num_done = update + 1
        is_due = num_done % self._every == 0
        if not is_due and num_done != self._num_updates:
            return
        fast, slow = list(self._fast.values()), list(self._slow.values())
        if is_due:
            progress = min(1.0, num_done / self._num_updates)  # who measures may step past a run's end
            torch._foreach_lerp_(slow, fast, 1.0 - self._share * progress**3)
        torch._foreach_copy_(fast, slow)

    def state_dict(self) -> dict[str, Any]:
        """The slow weights by their names; nothing where there are none."""
        return self._slow

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; where that was nothing they begin with the next update."""
        if self._every:
            self._slow = {name: torch.empty_like(self._fast[name]).copy_(slow) for name, slow in state_dict.items()}
