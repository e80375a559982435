"""The gradients of a window of batches that is not closed yet, as part of a run's state."""

from typing import Any

import torch
from torch import nn

from ..dist import Ranks


class OpenGradients:
    """What the parameters of a module hold as gradients between two steps of one window; nothing between windows.

    They are each rank's own until the window closes, and are kept so: a mean taken now would be summed in another
    order than one taken then. Every rank must call both methods.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self._module = module
        self._ranks = ranks

    def state_dict(self) -> dict[str, Any]:
        """{"ranks": [the gradients of each rank by parameter, on the CPU]}; complete on the main rank alone."""
        named = [(name, p.grad) for name, p in self._module.named_parameters() if p.grad is not None]
        parts: list[dict[str, torch.Tensor]] = [{} for _ in range(self._ranks.world_size)] if named else []
        for name, gradient in named:
            for part, of_rank in zip(parts, self._ranks.gather_tensor(gradient), strict=False):
                part[name] = of_rank.cpu()
        return {"ranks": parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up an open window. On another number of ranks each starts from the mean of the old ones'."""
        parts: list[dict[str, torch.Tensor]] = state_dict["ranks"]
        if not parts:
            return
        for name, parameter in self._module.named_parameters():
            if name in parts[0]:
                stored = [part[name] for part in parts]
                same = len(stored) == self._ranks.world_size
                own = stored[self._ranks.rank] if same else torch.stack(stored).mean(dim=0)
                # in the parameter's own layout, in which the norm of gradients is summed
                parameter.grad = torch.empty_like(parameter).copy_(own)
