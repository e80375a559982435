"""The picture of the self-test: what was named of what was planted, and how much of it was found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.profiler.record import INCONCLUSIVE
from engine.profiler.self_test.cells import KINDS, NOTHING, PLANTED, SIZES, Outcome
from engine.profiler.self_test.scores import confusion, counted, recovery
from tools.plots.picture import save

_COLORS = {"sleep": "tab:blue", "spin": "tab:orange"}


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the PNG."""
    save(figure_of(outcomes), path, "or name another folder with --report")


def figure_of(outcomes: Sequence[Outcome]) -> Figure:
    """A matrix for each size, rows planted and columns named; then recovered against injected delay."""
    kept = counted(outcomes)
    figure = Figure(figsize=(18, 5.2), layout="constrained")
    panels = figure.subplots(1, len(SIZES) + 1)
    names = [*(name for name in PLANTED if name != NOTHING), INCONCLUSIVE]
    for axes, size in zip(panels, SIZES, strict=False):
        of_size = [outcome for outcome in kept if outcome.cell.size == size]
        _matrix(axes, of_size, names)
        axes.set_title(f"{size:g} × the slack ({len(of_size)} cells)", fontsize=10)
    panels[0].set_ylabel("planted")
    _recovered(panels[-1], [outcome for outcome in kept if outcome.cell.planted != NOTHING])
    return figure


def _matrix(axes: Axes, outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
    counts = confusion(outcomes)
    planted = [name for name in PLANTED if name != NOTHING]
    columns = [*names, "other"]
    grid = np.zeros((len(planted), len(columns)))
    for (row, column), count in counts.items():
        grid[planted.index(row), columns.index(column if column in names else "other")] += count
    shares = grid / np.maximum(1, grid.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(planted)), planted, fontsize=8)
    axes.set_xlabel("named")
    for row, column in np.argwhere(grid):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{grid[row, column]:.0f}", ha="center", va="center", color=shade, fontsize=8)


def _recovered(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for kind in KINDS:
        points = [recovery(outcome) for outcome in outcomes if outcome.cell.kind == kind]
        if points:
            injected, recovered = np.array(points).T / 1e3
            axes.plot(injected, recovered, "o", color=_COLORS[kind], alpha=0.5, markersize=4, label=kind)
    most = axes.get_xlim()[1]
    axes.plot([0, most], [0, most], "--", color="gray", linewidth=1, label="as planted")
    axes.set(
        xlabel="planted, ms an image", ylabel="found in the stage table, ms an image", xlim=(0, None), ylim=(0, None)
    )
    axes.set_title("delay found against delay planted", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
