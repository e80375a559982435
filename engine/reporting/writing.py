"""Files of a run that cannot be written, said in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loaders.errors import FeedrateError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block that writes `path`: where the disk is full, or will not have it, FeedrateError says so."""
    try:
        yield
    except OSError as error:
        raise FeedrateError(
            f"{path} cannot be written ({error.strerror or error}): free some space or permit it, and the same command"
            " goes on from the newest checkpoint"
        ) from error
