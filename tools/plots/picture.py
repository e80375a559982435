"""From a figure to a PNG, whole or not there."""

from pathlib import Path

from matplotlib.figure import Figure

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError

_DOTS_PER_INCH = 120


def save(figure: Figure, path: Path, remedy: str = "name another file with --out") -> None:
    """Write `figure` as PNG, over what was there; folders are made. Raises FeedrateError, with the remedy, where it
    cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise FeedrateError(f"{path} cannot be written: {error.strerror}; {remedy}") from error
