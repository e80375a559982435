"""Modules that are not trained."""

from typing import TYPE_CHECKING, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .mixed_in import mix_in

if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object


class _Rests(_Module):
    """Put in front of a batch norm's own class: at rest it uses no batch's statistics and does not update its own."""

    is_at_rest = True

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.is_at_rest)


def let_rest(norm: _BatchNorm, is_at_rest: bool) -> None:
    """Keep a batch norm in evaluation mode, or let it follow the model again from its next `train()` on."""
    if not isinstance(norm, _Rests):
        mix_in(_Rests, norm, "Frozen")
    norm.is_at_rest = is_at_rest  # type: ignore[assignment]


def let_rest_as(source: nn.Module, copy: nn.Module) -> None:
    """Let the batch norms of a copy rest where those of its source do."""
    for theirs, own in zip(source.modules(), copy.modules(), strict=True):
        if isinstance(theirs, _Rests):
            own.is_at_rest = theirs.is_at_rest  # type: ignore[assignment]


def freeze_all_but(model: nn.Module, trained: tuple[str, ...]) -> None:
    """Freeze every parameter outside the modules of these names, and keep the batch norms there in evaluation mode."""
    kept = {id(part) for name in trained for part in model.get_submodule(name).modules()}
    for module in model.modules():
        if id(module) in kept:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if isinstance(module, _BatchNorm):
            let_rest(module, True)
            module.eval()
