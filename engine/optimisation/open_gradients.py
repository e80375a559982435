"""The gradients of a window of batches that is not closed yet, as part of a run's state."""

from typing import Any

import torch
from torch import nn

from ..dist import Ranks


class OpenGradients:
    """What the parameters of a module hold as gradients between two steps of one window; nothing between windows.

    They are each rank's own until the window closes, and are kept so: a mean taken now would be summed in another
    order than one taken then. Every rank must call `state_dict` and `load_state_dict`.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self._module = module
        self._ranks = ranks
        self._num_batches = 0
        self._length = 0

    def length_with(self, num_left: int) -> int:
        """To be called before each batch: how many the window will have, where `num_left` are to come, this one too.

        Its mean loss is divided by that. Where a run goes on with windows of another length, the one that was open has
        more or fewer batches than was thought: the gradients in it are scaled anew.
        """
        length = self._num_batches + num_left
        if self._num_batches and length != self._length:
            for parameter in self._module.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._length / length)
        self._length = length
        self._num_batches += 1
        return length

    def close(self) -> None:
        """To be called where the weights move."""
        self._num_batches = 0

    def state_dict(self) -> dict[str, Any]:
        """{"ranks": [the gradients of each rank by parameter, on the CPU]}; complete on the main rank alone. Beside it,
        how many batches are in them, and of how many in all they were thought to be."""
        named = [(name, p.grad) for name, p in self._module.named_parameters() if p.grad is not None]
        parts: list[dict[str, torch.Tensor]] = [{} for _ in range(self._ranks.world_size)] if named else []
        for name, gradient in named:
            for part, of_rank in zip(parts, self._ranks.gather_tensor(gradient), strict=False):
                part[name] = of_rank.cpu()
        return {"ranks": parts, "num_batches": self._num_batches, "length": self._length if self._num_batches else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up an open window. On another number of ranks each starts from the mean of the old ones'."""
        parts: list[dict[str, torch.Tensor]] = state_dict["ranks"]
        self._num_batches, self._length = state_dict["num_batches"], state_dict["length"]
        if not parts:
            return
        for name, parameter in self._module.named_parameters():
            if name in parts[0]:
                stored = [part[name] for part in parts]
                same = len(stored) == self._ranks.world_size
                own = stored[self._ranks.rank] if same else torch.stack(stored).mean(dim=0)
                # in the parameter's own layout, in which the norm of gradients is summed
                parameter.grad = torch.empty_like(parameter).copy_(own)
