"""`plot.py confusion`: the confusion matrix of a run's newest evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from loaders.errors import FeedrateError
from loaders.home_folder import given_path
from tools.benchmarks.arguments import Parser

from .picture import save

_MAX_NAMED = 40  # more names could not be read
_MAX_NUMBERED = 20


def run(arguments: Sequence[str]) -> Path:
    """Draw what the arguments ask for; returns the file. Raises FeedrateError on bad ones."""
    parser = Parser(prog="plot.py confusion", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=given_path, help="folder of a run")
    parser.add_argument("--out", type=given_path, help="PNG to write (default RUN/confusion.png)")
    chosen = parser.parse_args(arguments)
    path: Path = chosen.out or chosen.run / "confusion.png"
    save(figure_of(*read_confusion(chosen.run)), path)
    return path


def read_confusion(folder: Path) -> tuple[NDArray[np.int64], list[str], int]:
    """int64 [C, C] counts (row: what an image is), the classes' names, and the epoch, counted from 1."""
    try:
        report = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        counts: NDArray[np.int64] = np.load(folder / "confusion.npy")
    except OSError as error:
        raise FeedrateError(
            f"{error.filename} cannot be read: {error.strerror}; name a run's folder with an evaluation of at most"
            " 2,000 classes"
        ) from error
    return counts, [row["class"] for row in report["classes"]], report["epoch"] + 1


def figure_of(counts: NDArray[np.int64], names: list[str], epoch: int) -> Figure:
    """Shares of each row as shades, counts as numbers where they can be read."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class's images", shrink=0.8)
    if len(names) <= _MAX_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= _MAX_NUMBERED:
        for row, column in np.ndindex(*counts.shape):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=shade, fontsize="small")
    right = np.trace(counts) / max(1, counts.sum())
    axes.set(xlabel="taken for", ylabel="is", title=f"after epoch {epoch}: {right:.2%} of {counts.sum():,} right")
    return figure
