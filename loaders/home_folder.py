"""Paths as they are given: ~ is the home folder also where no shell made it so, as in --run.folder=~/runs."""

import os
from pathlib import Path


def expand_home(path: str) -> str:
    """`path` with a ~ or ~NAME at its beginning replaced; as it is where there is none, or nobody of that name."""
    return os.path.expanduser(path)  # noqa: PTH111  # Path's own changes more, and refuses who is not there


def given_path(text: str) -> Path:
    """What a command makes of a path among its own options."""
    return Path(expand_home(text))
