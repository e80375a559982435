"""Parameters that rest in some epochs: a backbone until its new classifier has learnt, a layer that has learnt enough.

A parameter that rests gets no gradient, so an optimizer passes it over: no step, no decay, its momentum as it was. What
only it needs of the backward pass is not computed.
"""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from loaders.errors import FeedrateError

from ..models.freezing import let_rest
from .patterns import rules_by_name

_NAMED_AT_MOST = 3

Rules = Iterable[tuple[str, int, int]]


class FrozenEpochs:
    """`rules` are a pattern of parameters' names each, the epoch from which what it fits rests, counted from 0, and the
    one from which it is trained again, -1: none; where several fit a parameter the last counts.

    Batch norms all of whose trained parameters rest use and keep the statistics they have. Nothing rests before `begin`
    is called. Raises FeedrateError where a pattern fits nothing, or nothing would be trained in an epoch.
    """

    def __init__(self, model: nn.Module, rules: Rules, num_epochs: int) -> None:
        self._trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._spans = {
            name: (first, num_epochs if end == -1 else end)
            for name, (_, first, end) in rules_by_name(model, "frozen_epochs", rules).items()
        }
        spanned = {id(self._trained[name]) for name in self._spans}
        self._norms = [
            (module, own)
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            and (own := [p for p in module.parameters(recurse=False) if p.requires_grad])
            and all(id(parameter) in spanned for parameter in own)
        ]
        for norm, _ in self._norms:
            let_rest(norm, False)
        self.resting: tuple[str, ...] = ()
        """Names, in the model's order."""
        self.num_states = len({self._resting_in(epoch) for epoch in self._turns(num_epochs)})
        """How many sets of parameters rest at one time or another, none being one."""

    def begin(self, epoch: int) -> bool:
        """Let rest what does in this epoch, and train all else. Whether that is another set than until now."""
        resting = self._resting_in(epoch)
        if resting == self.resting:
            return False
        self.resting = resting
        for name, parameter in self._trained.items():
            parameter.requires_grad_(name not in resting)
            if name in resting:
                parameter.grad = None  # of a window that a run with other rules left open
        for norm, own in self._norms:
            let_rest(norm, not any(parameter.requires_grad for parameter in own))
        return True

    def described(self) -> str:
        """What rests now, for the log."""
        named = ", ".join(self.resting[:_NAMED_AT_MOST])
        num_others = len(self.resting) - _NAMED_AT_MOST
        not_trained = f", not {named}" if self.resting else ""
        more = f" and {num_others} more" if num_others > 0 else ""
        trained = len(self._trained) - len(self.resting)
        return f"trained from here on: {trained} of {len(self._trained)} parameters{not_trained}{more}"

    def _resting_in(self, epoch: int) -> tuple[str, ...]:
        return tuple(name for name in self._trained if name in self._spans and epoch in range(*self._spans[name]))

    def _turns(self, num_epochs: int) -> list[int]:
        """The first epoch, and every one of the run that may let rest others than the one before it did."""
        turns = sorted({0, *(epoch for span in self._spans.values() for epoch in span if epoch < num_epochs)})
        for epoch in turns:
            if self._trained and len(self._resting_in(epoch)) == len(self._trained):
                raise FeedrateError(
                    f"frozen_epochs lets all {len(self._trained)} parameters rest in epoch {epoch}, counted from 0:"
                    " something must be trained in each"
                )
        return turns
