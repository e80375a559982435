"""Training the classifier alone."""

from typing import TYPE_CHECKING, Self

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .mixed_in import mix_in

if TYPE_CHECKING:
    _Module = nn.Module
else:
    _Module = object


class _StaysInEvaluation(_Module):
    """Put in front of a batch norm's own class: it never uses a batch's statistics and never updates its own."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def freeze_all_but(model: nn.Module, trained: tuple[str, ...]) -> None:
    """Freeze every parameter outside the modules of these names, and keep the batch norms there in evaluation mode."""
    kept = {id(part) for name in trained for part in model.get_submodule(name).modules()}
    for module in model.modules():
        if id(module) in kept:
            continue
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if isinstance(module, _BatchNorm):
            mix_in(_StaysInEvaluation, module, "Frozen")
            module.eval()
