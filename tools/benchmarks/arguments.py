"""How the options of a command are read: what is wrong is one sentence."""

import argparse
from collections.abc import Callable, Collection
from typing import NoReturn

from loaders.errors import FeedrateError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Raises FeedrateError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise FeedrateError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    """A list of such numbers, sorted and without doubles."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


def seeds(text: str) -> tuple[int, ...]:
    """A list of whole numbers of 0 or more, without doubles."""
    for word in text.split(","):
        if not word.isdecimal():
            raise argparse.ArgumentTypeError(f"'{word}' is not a whole number of 0 or more")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def duration(unit: str, most: int) -> Callable[[str], float]:
    """Of a time in seconds or minutes: above 0, and so many at most."""

    def parsed(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number of {unit} above 0 and at most {most:,}")
        return number

    return parsed


seconds = duration("seconds", 3600)


def add_finished_only(command: argparse.ArgumentParser) -> None:
    """The option of commands that were ended before they could tell what they had measured."""
    text = "measure nothing: report what was finished before the command was ended, and leave it for going on"
    command.add_argument("--finished-only", action="store_true", help=text)


def names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Of a list of some of these names, without doubles."""

    def parsed(text: str) -> tuple[str, ...]:
        for word in text.split(","):
            if word not in known:
                near = did_you_mean(word, known)
                raise argparse.ArgumentTypeError(f"'{word}' is unknown: {near}known are {', '.join(known)}")
        return tuple(dict.fromkeys(text.split(",")))

    return parsed
