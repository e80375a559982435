"""In which form records are stored, told by the records themselves."""

from typing import Literal

from .read_ahead import Mapped
from .records import Records, is_own, lie_in_memory

StoredAs = Literal["packed", "folder", "memory", "own"]


def stored_form(records: Records, path: str) -> tuple[StoredAs, bool]:
    """Of what is stored at `path`: in which form, and whether all samples are raw.

    packed  its samples are ranges of mapped files;  folder  one file a sample;  memory  they are in no file
    own     a user's own records (`module:name@path`), of which no more is known
    """
    is_raw = bool(records.is_raw.all())
    if is_own(path):
        return "own", is_raw
    if lie_in_memory(records):
        return "memory", is_raw
    return ("packed" if isinstance(records, Mapped) else "folder"), is_raw
