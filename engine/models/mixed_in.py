"""Giving a module that is there already another behaviour."""

from torch import nn


def mix_in(behaviour: type, module: nn.Module, word: str) -> None:
    """Put `behaviour` before the module's own class, as one whose name begins with `word`.

    The object stays, and with it whatever refers to it, its parameters and their names; copies keep the behaviour.
    torch's own parametrizations change classes in the same way.
    """
    kind = type(module)
    module.__class__ = type(f"{word}{kind.__name__}", (behaviour, kind), {})
