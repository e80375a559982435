"""Files that cannot be written, said in a sentence with what helps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loaders.errors import FeedrateError

THEN_GO_ON = "and the same command goes on from the newest checkpoint"
OR_ELSEWHERE = "or give another --run.folder"


@contextmanager
def writing(path: Path, what_else: str = THEN_GO_ON) -> Iterator[None]:
    """A block that writes `path`: where the disk is full, or will not have it, FeedrateError says so.

    what_else  ends the sentence: what follows once there is room, or what helps as well
    """
    try:
        yield
    except OSError as error:
        raise FeedrateError(
            f"{path} cannot be written ({error.strerror or error}): free some space or permit it, {what_else}"
        ) from error
