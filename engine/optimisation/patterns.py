"""Settings that say something of parameters whose names a pattern fits."""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import TypeVar

from torch import nn

from loaders.errors import FeedrateError, did_you_mean

_NAMED_AT_MOST = 5

Rule = TypeVar("Rule", bound=tuple[object, ...])


def rules_by_name(model: nn.Module, setting: str, rules: Iterable[Rule]) -> dict[str, Rule]:
    """The rule of each trained parameter that any of `rules` fits, by its name: where several do the last counts.

    A rule begins with its pattern, which is one of the shell's. Raises FeedrateError for a pattern that fits nothing.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found: dict[str, Rule] = {}
    for rule in rules:
        pattern = str(rule[0])
        fitting = [name for name in trained if fnmatch(name, pattern)]
        if not fitting:
            raise FeedrateError(
                f"{setting} has '{pattern}', which fits no parameter that is trained:"
                f" {did_you_mean(pattern, trained)}the first are {', '.join(trained[:_NAMED_AT_MOST])};"
                f" --optim.{setting.replace('_', '-')} with nothing behind it leaves all as they are"
            )
        found |= dict.fromkeys(fitting, rule)
    return found
