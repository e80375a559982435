"""What tyro finds wrong with a command line, as one sentence about the option."""

import ast
import itertools
import re
from typing import get_args, get_type_hints

from .config import Config
from .option_names import option_names

_NO_WORD_AND_NO_NUMBERS = re.compile(
    r"Error parsing (--\S+): no type matching \{(.+?)\}\|\{([A-Z ]+)\} could be instantiated from (\[.*?\])\."
)
_NOT_SO_REPEATED = re.compile(r"Error parsing --(\w+)\.(\S+): Could not find valid parse for arguments: (\[.*\])")
# what an option may be given any number of
_REPEATED = {
    int: "whole numbers",
    float: "numbers",
    tuple[float, float]: "pairs of numbers",
    tuple[int, int]: "pairs of whole numbers",
    tuple[str, float]: "pairs of a pattern and a number",
    tuple[str, int, int]: "a pattern and two whole numbers each time",
}


def sentence(box: str) -> str:
    """The first paragraph of the framed message that tyro prints, as one line. An ASCII terminal gets no frame."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith(("│", "  "))]
    paragraph = list(itertools.takewhile(lambda line: not line.startswith(("─", "---")), lines))
    return _of_option(" ".join(paragraph)) or "the command line cannot be read: see --help"


def _of_option(complaint: str) -> str:
    """What a section says of a setting of its own, "Error parsing data: batch_size is 0 …", said of the option.

    So is what tyro says of one that takes a word or several numbers, or as many as are given.
    """
    if (neither := _NO_WORD_AND_NO_NUMBERS.match(complaint)) is not None:
        option, words, numbers, given = neither.groups()
        shown = _words(given) or "empty"
        known = ", ".join(word.strip() for word in words.split(","))
        return f"{option} is {shown}: it must be one of {known}, or {len(numbers.split())} numbers with spaces between"
    if (repeated := _NOT_SO_REPEATED.match(complaint)) is not None:
        section, name, given = repeated.groups()
        kind = get_type_hints(get_type_hints(Config)[section])[name.replace("-", "_")]
        shown = _words(given) or "empty"
        return f"--{section}.{name} is {shown}: it must be {_REPEATED[get_args(kind)[0]]}, with spaces between"
    parsed = re.fullmatch(r"Error parsing (\w+): ((\w+)( .*))", complaint)
    if parsed is None:
        return complaint
    section, message, field, rest = parsed.groups()
    option = f"--{field}" if section == "Config" else f"--{section}.{field}"
    option = option.replace("_", "-")
    return option + rest if option in option_names(Config) else message


def _words(listed: str) -> str:
    """What stands in a list as Python prints it; the list where it was cut off."""
    try:
        return " ".join(ast.literal_eval(listed))
    except (SyntaxError, ValueError):
        return listed
