"""An optimizer that goes on under other settings than its checkpoint was written under.

torch restores the settings with the state, so those that a run was started anew with would be lost without a word.
"""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from loaders.errors import FeedrateError

from .optim import build_optimizer
from .optim_config import OptimConfig

_PARTED_BY = ("decay_factors", "rate_factors")
_MADE_OF = ("name", "learning_rate", "momentum", "nesterov", "betas", "options", "weight_decay", *_PARTED_BY)


def settings_before(config: OptimConfig, saved: dict[str, Any], differences: Collection[str]) -> OptimConfig:
    """`config` with what an optimizer is made of as it was in a checkpoint, which may be the same.

    `saved` is the configuration in the checkpoint's identity, `differences` what the run's own differs in from that.
    """
    changed = [name for name in _MADE_OF if f"config.optim.{name}" in differences]
    usual = OptimConfig()  # what a checkpoint does not tell of
    before: dict[str, Any] = {name: _as_tuple(saved.get(f"optim.{name}", getattr(usual, name))) for name in changed}
    return replace(config, **before)


@dataclass(frozen=True)
class ChangedOptimizer:
    """Part of a run's state: takes up what an optimizer gathered, and of its settings only those that did not change.

    optimizer   as `config` made it for `model`, and nothing done by it yet
    before      the settings of the optimizer whose state is taken up
    say         hears where nothing of the state can be

    What an optimizer writes among its settings while it runs, such as a count of updates, is taken up with the rest.
    """

    optimizer: torch.optim.Optimizer
    model: nn.Module
    config: OptimConfig
    before: OptimConfig
    say: Callable[[str], None]

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it up. Raises ValueError, as torch does, where it is of other parameters."""
        if self.before.name != self.config.name:
            self.say(f"the optimizer was {self.before.name} and is {self.config.name}: it starts anew")
        elif changed_patterns := self._parted_otherwise_by():
            told = " and ".join(changed_patterns)
            self.say(f"{told} part the parameters otherwise than the checkpoint's optimizer: it starts anew")
        elif missing := self._missing(state_dict["state"]):
            self.say(f"the checkpoint holds no {missing}, which the optimizer now needs: it starts anew")
        else:
            changed = self._changed()
            self.optimizer.load_state_dict(state_dict)
            for group, settings in zip(self.optimizer.param_groups, changed, strict=True):
                group.update(settings)

    def _parted_otherwise_by(self) -> list[str]:
        """The settings by which parameters stand in other groups, whose order an optimizer's state goes by."""
        changed = [name for name in _PARTED_BY if getattr(self.before, name) != getattr(self.config, name)]
        try:
            earlier = _numbers(build_optimizer(self.before, self.model)) if changed else []
        except FeedrateError:  # patterns of another model
            return changed
        if not changed or earlier == _numbers(self.optimizer):
            return []
        alone = [replace(self.before, **{name: getattr(self.config, name)}) for name in changed]
        blamed = [
            name
            for name, config in zip(changed, alone, strict=True)
            if _numbers(build_optimizer(config, self.model)) != earlier
        ]
        return blamed or changed

    def _changed(self) -> list[dict[str, Any]]:
        """Of each group what it would not have under the settings before, whatever the optimizer derives from them."""
        earlier = build_optimizer(self.before, self.model).param_groups
        return [
            {name: value for name, value in now.items() if name != "params" and value != before.get(name)}
            for now, before in zip(self.optimizer.param_groups, earlier, strict=True)
        ]

    def _missing(self, states: dict[int, dict[str, Any]]) -> str:
        """The first thing that the state of a parameter lacks for the next update, found by one of a copy; "" if none.

        With amsgrad, or momentum where there was none, for instance, updates read what none before them kept.
        """
        model = copy.deepcopy(self.model)
        optimizer = build_optimizer(self.config, model)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        needed = optimizer.state_dict()["state"]
        lacking = [needed[number].keys() - state.keys() for number, state in states.items() if number in needed]
        return min((name for names in lacking for name in names), default="")


def _numbers(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]


def _as_tuple(value: Any) -> Any:
    """A setting as JSON has it, as the configuration does."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
