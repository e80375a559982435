"""The picture of `bench.py accuracy`: top-1 and loss over epochs, all seeds, a colour a loader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_WIDEST = 4.5  # of the first loader: where curves are equal, all can still be seen, one within the other
_STYLES = ("-", "--", ":", "-.")


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """Write the PNG."""
    figure_of(measured).savefig(path, dpi=120)


def figure_of(measured: Mapping[str, Any]) -> Figure:
    """Two panels of every run, and what colours and lines mean."""
    settings = measured["settings"]
    loaders, seeds = settings["loaders"], settings["seeds"]
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    widths = [max(1.0, _WIDEST - 3.5 * place / max(1, len(loaders) - 1)) for place in range(len(loaders))]
    for run in measured["runs"]:
        place = loaders.index(run["loader"])
        look = {
            "color": _COLORS[place % len(_COLORS)],
            "linewidth": widths[place],
            "linestyle": _STYLES[seeds.index(run["seed"]) % len(_STYLES)],
            "zorder": 2 + place,
        }
        epochs = [record["epoch"] + 1 for record in run["epochs"]]
        left.plot(epochs, [100 * record["eval_top1"] for record in run["epochs"]], **look)
        right.plot(epochs, [record["train_loss"] for record in run["epochs"]], **look)
    left.set(ylabel="top-1 of evaluation, %", title="Top-1")
    right.set(ylabel="mean over the epoch", title="Loss in training")
    for axes in (left, right):
        _axes(axes, settings["num_epochs"])
    handles = [
        Line2D([], [], color=_COLORS[place % len(_COLORS)], linewidth=widths[place], label=loader)
        for place, loader in enumerate(loaders)
    ]
    handles += [
        Line2D([], [], color="black", linestyle=_STYLES[place % len(_STYLES)], label=f"seed {seed}")
        for place, seed in enumerate(seeds)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(settings["config"])
    return figure


def _axes(axes: Axes, num_epochs: int) -> None:
    axes.set(xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if num_epochs == 1:
        for line in axes.get_lines():
            line.set_marker("o")
    axes.spines[["top", "right"]].set_visible(False)
