"""The picture of `bench.py train`: images a second of every side, a panel a case and feed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .sides import FEEDS, OURS

_COLORS = {True: "tab:blue", False: "tab:gray"}


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """Write the PNG."""
    figure_of(measured).savefig(path, dpi=120)


def figure_of(measured: Mapping[str, Any]) -> Figure:
    """Bars with their range, and beside each of the others how many times as fast ours is."""
    cases = list(measured["cases"].values())
    figure = Figure(figsize=(12, 1 + 1.5 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), len(FEEDS), squeeze=False)
    for axes_row, case in zip(panels, cases, strict=True):
        for axes, (feed, title) in zip(axes_row, FEEDS.items(), strict=True):
            _bars(axes, case["feeds"][feed])
            axes.set_title(f"{title}: {case['title']}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("images a second")
    return figure


def _bars(axes: Axes, found: Mapping[str, Any]) -> None:
    for place, (side, spread) in enumerate(found["sides"].items()):
        rate, low, high = (1 / spread[key] for key in ("median", "highest", "lowest"))
        axes.barh(place, rate, color=_COLORS[side == OURS])
        axes.errorbar(rate, place, xerr=[[rate - low], [high - rate]], color="black", capsize=2, linewidth=1)
        times = found["ratios"].get(side)
        text = f" {rate:,.0f}" + (f"   ours ÷ it {times['median']:.2f}×" if times else "")
        axes.text(high, place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(found["sides"])), list(found["sides"]), fontsize=9)
    axes.set(xlim=(0, 1.5 * axes.get_xlim()[1]), ylim=(len(found["sides"]) - 0.4, -0.6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
