"""Restart markers in packed JPEGs, and seek points beside them, made by the native kernel of the loaders."""

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError


def require_kernel(option: str) -> None:
    """Raises FeedrateError, saying what to install, where what the option asks for cannot be made."""
    if reason := why_no_kernel():
        raise FeedrateError(f"{option} needs the native kernel: {reason}")


def why_no_kernel() -> str:
    """One sentence; empty where there is one."""
    from loaders.native import library

    return library.why_not()


def with_restarts(jpeg: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The same pixels with restart markers, uint8 [size]; None where libjpeg would have to mend the file to read it."""
    from loaders.native.restart_markers import add_restart_markers

    rewritten = add_restart_markers(jpeg)
    return None if rewritten is None else np.frombuffer(rewritten, np.uint8)


def points_of(jpeg: NDArray[np.uint8], spacing: int = 0) -> bytes:
    """See `noted_points`: empty where there are none, among others where the file is damaged."""
    from loaders.native import library
    from loaders.native.kernel import noted_points

    return noted_points(library.required(), jpeg, spacing)
