"""What of a run a checkpoint keeps: holders of state, each by the name it has in the file."""

from typing import Any, Protocol

from .checkpoint import Say


class StateHolder(Protocol):
    """Something that changes during a run and that going on needs: a model, an optimizer, averages, a best value.

    Both methods are called on every rank, in the same order, so they may exchange words between ranks. What the main
    rank's `state_dict` gives is written: tensors and plain data. It is read back on the CPU, on every rank.
    """

    def state_dict(self) -> dict[str, Any]:
        """The state as it is, which need not be a copy."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take up what `state_dict` gave once."""
        ...


States = dict[str, StateHolder]


def collect(states: States) -> dict[str, dict[str, Any]]:
    """Every holder's state, by its name. Every rank must call it."""
    return {name: holder.state_dict() for name, holder in states.items()}


def restore(states: States, checkpoint: dict[str, Any], say: Say) -> None:
    """Give every holder its state from a checkpoint; `say` hears of those the checkpoint knows nothing of."""
    for name, holder in states.items():
        if name in checkpoint:
            holder.load_state_dict(checkpoint[name])
        else:
            say(f"the checkpoint holds nothing for {name}: it starts anew")
