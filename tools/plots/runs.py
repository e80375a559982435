"""`plot.py runs`: curves of one or several runs side by side, against the epoch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from loaders.errors import FeedrateError
from loaders.home_folder import given_path
from tools.benchmarks import json_lines
from tools.benchmarks.arguments import Parser

from .picture import save

Floats = NDArray[np.float64]

# title of a panel, and its curves: field of an epoch's record, what it is called, how its line looks
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("loss", (("train_loss", "train", ":"), ("eval_loss", "eval", "-"))),
    ("top-1", (("train_top1", "train", ":"), ("eval_top1", "eval", "-"))),
    ("learning rate", (("learning_rate", "", "-"),)),
    ("images a second", (("images_per_s", "", "-"),)),
)


@dataclass(frozen=True)
class History:
    """The records of one run's metrics.jsonl."""

    name: str
    epochs: list[dict[str, Any]]
    steps: list[dict[str, Any]]

    def curve(self, field: str) -> tuple[Floats, Floats]:
        """Epochs (a figure of the first epoch stands at 1) and values; NaN where a record has none.

        The learning rate is drawn step by step where the steps were logged.
        """
        if field == "learning_rate" and len(self.steps) > 1 and (length := self._steps_per_epoch()):
            steps = self.steps
            at = np.array([(record["step"] + 1) / length for record in steps], dtype=np.float64)
            return at, _values(steps, field)
        at = np.array([record["epoch"] + 1 for record in self.epochs], dtype=np.float64)
        return at, _values(self.epochs, field)

    def _steps_per_epoch(self) -> float | None:
        ended = [record for record in self.epochs if "num_steps" in record]
        return ended[-1]["num_steps"] / (ended[-1]["epoch"] + 1) if ended else None


def run(arguments: Sequence[str]) -> Path:
    """Draw what the arguments ask for; returns the file. Raises FeedrateError on bad ones."""
    parser = Parser(prog="plot.py runs", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=given_path, help="run folders, or their metrics.jsonl")
    parser.add_argument("--out", type=given_path, default=Path("curves.png"), help="PNG to write (default curves.png)")
    parser.add_argument(
        "--group",
        metavar="PATTERN",
        default="",
        help="average runs whose names are the same without what this regular expression matches, such as"
        " '.seed[0-9]+': mean as a line, smallest to largest as a band",
    )
    chosen = parser.parse_args(arguments)
    histories = [read_history(path) for path in chosen.runs]
    save(figure_of(grouped(histories, chosen.group)), chosen.out)
    path: Path = chosen.out
    return path


def read_history(path: Path) -> History:
    """The run of a folder (or of its metrics.jsonl). Raises FeedrateError where it holds no epoch yet."""
    file = path if path.name.endswith(".jsonl") else path / "metrics.jsonl"
    try:
        file.stat()  # json_lines takes one that is absent for empty
        records = json_lines.by_kind(file)  # whole lines only: the run may be writing one
    except OSError as error:
        raise FeedrateError(f"{file} cannot be read: {error.strerror}; name folders of runs") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FeedrateError(f"{file} is no log of a run: a line of it is not a record") from error
    if not records["epoch"]:
        raise FeedrateError(f"{file} holds no finished epoch yet: there is nothing to draw")
    return History(file.absolute().parent.name, records["epoch"], records["step"])


def grouped(histories: Sequence[History], pattern: str) -> dict[str, list[History]]:
    """Runs by name without what `pattern` matches; each its own group where it is empty."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise FeedrateError(f"--group '{pattern}' is no regular expression: {error}") from error
    groups: dict[str, list[History]] = {}
    for history in histories:
        name = expression.sub("", history.name) if pattern else history.name
        while not pattern and name in groups:  # runs of one name in different folders
            name += "′"
        groups.setdefault(name, []).append(history)
    return groups


def figure_of(groups: dict[str, list[History]]) -> Figure:
    """Four panels, a colour a group."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (title, curves) in zip(panels, _PANELS, strict=True):
        for number, histories in enumerate(groups.values()):
            for field, _, style in curves:
                _draw(axes, [history.curve(field) for history in histories], f"C{number % 10}", style)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
        if title != "loss":
            axes.set_ylim(bottom=0)
        if len(curves) > 1:
            kinds = [Line2D([], [], linestyle=style, color="grey", label=name) for _, name, style in curves]
            axes.legend(handles=kinds, loc="best", fontsize="small")
    handles = []
    for number, (name, histories) in enumerate(groups.items()):
        label = name if len(histories) == 1 else f"{name} (n = {len(histories)})"
        handles.append(Line2D([], [], color=f"C{number % 10}", label=label))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(groups)), frameon=False)
    return figure


def mean_and_band(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats, Floats, Floats]:
    """Epochs that all runs have, and at each the mean, the smallest and the largest value."""
    at = curves[0][0]
    for other, _ in curves[1:]:
        at = np.intersect1d(at, other)
    table = np.stack([values[np.searchsorted(own, at)] for own, values in curves])
    return at, table.mean(axis=0), table.min(axis=0), table.max(axis=0)


def _draw(axes: Axes, curves: Sequence[tuple[Floats, Floats]], colour: str, style: str) -> None:
    at, mean, low, high = mean_and_band(curves)
    marker = "." if len(at) < 12 else ""  # a single epoch would not show as a line
    axes.plot(at, mean, style, marker=marker, color=colour)
    if len(curves) > 1:
        axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def _values(records: Sequence[dict[str, Any]], field: str) -> Floats:
    return np.array([np.nan if record.get(field) is None else record[field] for record in records], dtype=np.float64)
