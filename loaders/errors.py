"""What a user sees when something they gave cannot be used."""

import operator
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import SupportsIndex

_ALIKE = 0.6  # the least share of letters in order that two names have in common for one to be a slip for the other
_MOST_NAMED = 3  # in a sentence, of names


class FeedrateError(ValueError):
    """Bad input, told in one sentence: the value, the rule it breaks and the remedy.

    Commands print the message alone and exit with status 2; any other exception is a bug and keeps its traceback.
    """


class LoaderError(FeedrateError):
    """Samples could not be delivered; of a single one, the message names its id and where it is stored."""


class SampleError(LoaderError):
    """It could not because of its own bytes, so that another may be taken in its place, or the set be mended."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean X? ' with the known name nearest to `word`, or '' if none is near; goes in front of the remedy."""
    names = {name.lstrip("-"): name for name in known}  # dashes, which all options have, make none alike
    near = get_close_matches(word.lstrip("-"), names, n=1, cutoff=_ALIKE)
    return f"did you mean {names[near[0]]}? " if near else ""


def whole_number(name: str, value: SupportsIndex) -> int:
    """`value`, of whatever integer type, as an int. Raises FeedrateError, which calls it `name`, on what is none."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise FeedrateError(f"{name} is {value!r}: it must be a whole number") from error


def first_line(error: Exception) -> str:
    """The first line of what others' code raised, to stand within a sentence; its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def some_of(names: Collection[str]) -> str:
    """The first few of `names`, sorted, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(repr(name) for name in sorted(names)[:_MOST_NAMED]) + more
