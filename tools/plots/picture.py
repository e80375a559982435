"""From a figure to a PNG, whole or not there."""

from pathlib import Path

from matplotlib.figure import Figure

from engine.reporting.writing import writing
from loaders.atomic import atomic_file

_DOTS_PER_INCH = 120


def save(figure: Figure, path: Path, what_else: str = "or name another file with --out") -> None:
    """Write `figure` as PNG, over what was there; folders are made. Raises FeedrateError where it cannot be, with what
    helps beside room for it."""
    with writing(path, what_else):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
