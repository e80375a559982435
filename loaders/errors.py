"""What a user sees when something they gave cannot be used."""

from collections.abc import Iterable
from difflib import get_close_matches


class FeedrateError(ValueError):
    """Bad input, told in one sentence: the value, the rule it breaks and the remedy.

    Commands print the message alone and exit with status 2; any other exception is a bug and keeps its traceback.
    """


class LoaderError(FeedrateError):
    """A sample could not be delivered; the message names its id and where it is stored."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean X? ' with the known name nearest to `word`, or '' if none is near; goes in front of the remedy."""
    names = list(known)
    near = get_close_matches(word, names, n=1, cutoff=0.5)
    # a forgotten section is the likeliest slip: --batch-size for --data.batch-size
    near = near or [name for name in names if name.endswith("." + word.lstrip("-"))][:1]
    return f"did you mean {near[0]}? " if near else ""
