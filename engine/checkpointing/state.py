"""What of a run a checkpoint keeps: holders of state, each by the name it has in the file."""

from collections.abc import Collection
from typing import Any, Protocol

from loaders.errors import FeedrateError

from .checkpoint import Say

_LONGEST_ERROR = 160


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


def restore(states: States, checkpoint: dict[str, Any], say: Say, changed: Collection[str] = ()) -> None:
    """Give every holder its state from a checkpoint; `say` hears of those the checkpoint knows nothing of.

    Raises FeedrateError where a state does not fit what was `changed` since, or may have been: settings by their names.
    """
    for name, holder in states.items():
        if name not in checkpoint:
            say(f"the checkpoint holds nothing for {name}: it starts anew")
            continue
        try:
            holder.load_state_dict(checkpoint[name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if not changed:
                raise  # it is the very run that wrote it
            raise FeedrateError(
                f"what the checkpoint holds for {name} does not fit ({_shortened(error)}): take back what was changed"
                f" ({', '.join(changed)}), or start another run with --name"
            ) from error


def _shortened(error: Exception) -> str:
    """An error of many lines, as torch words what does not fit a model, in one line."""
    words = " ".join(str(error).split()).rstrip(".")
    return words if len(words) <= _LONGEST_ERROR else words[:_LONGEST_ERROR] + "…"
