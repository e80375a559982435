"""Restart markers in packed JPEGs, made by the native kernel of the loaders."""

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError


def require_restarts() -> None:
    """Raises FeedrateError, saying what to install, where restart markers cannot be written."""
    from loaders.native import library

    if library.load() is None:
        raise FeedrateError(f"--restart-markers needs the native kernel: {library.why_not()}")


def with_restarts(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The same pixels with restart markers, uint8 [size]; None where libjpeg would have to mend the file to read it."""
    from loaders.native.restart_markers import add_restart_markers

    rewritten = add_restart_markers(jpeg)
    return None if rewritten is None else np.frombuffer(rewritten, np.uint8)
