"""One part of the check: a command, how long it may take, and what its results say."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..benchmarks.process import REPOSITORY
from ..benchmarks.rounds import MEASURED


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    device    "cuda", or "cpu" for a dry run
    is_dry    tiny sizes: to see whether everything runs
    work      folder for images and what parts leave for each other
    photos    class folders of JPEGs to use in place of those that are found or generated; None: find them
    """

    device: str
    is_dry: bool
    work: Path
    photos: Path | None = None


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was measured, and the figure with unit, spread and n, as text."""

    what: str
    figure: str


@dataclass(frozen=True)
class Part:
    """One entry of the check, by name.

    minutes   that it is expected to take on a large GPU with 16 cores: what --minutes counts with
    limit_s   after which it is ended
    command   of the setting and of the folder that its results go to
    findings  read from that folder; raises FeedrateError where the results say that something is wrong
    missing   why it cannot run here, or ""
    code      folders whose code it depends on: results of other code do not count
    goes_on   whether its command keeps what is finished for the next call, and has --finished-only to tell it
    tells_what_is_not_kept  whether its command fails where all is measured and something is not as promised
    """

    title: str
    minutes: float
    limit_s: float
    command: Callable[[Setting, Path], Sequence[str]]
    findings: Callable[[Path], Sequence[Finding]]
    missing: Callable[[Setting], str] = lambda setting: ""
    code: tuple[str, ...] = MEASURED
    goes_on: bool = False
    tells_what_is_not_kept: bool = False


def python(script: str, *words: object) -> list[str]:
    """`python SCRIPT WORDS`, by this interpreter, of a script in this repository."""
    return [sys.executable, str(REPOSITORY / script), *map(str, words)]
