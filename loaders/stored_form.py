"""In which form records are stored, told by the records themselves."""

from typing import Literal

from .read_ahead import Mapped
from .records import Records, is_own

StoredAs = Literal["packed", "folder", "memory", "own"]


def stored_form(records: Records, path: str) -> tuple[StoredAs, bool]:
    """Of what is stored at `path`: in which form, and whether all samples are raw.

    packed  its samples are ranges of mapped files;  folder  one file a sample;  memory  raw pixels without a file
    own     a user's own records (`module:name@path`), of which no more is known
    """
    is_raw = bool(records.is_raw.all())
    if is_own(path):
        return "own", is_raw
    if isinstance(records, Mapped):
        return "packed", is_raw
    return ("memory" if is_raw else "folder"), is_raw
