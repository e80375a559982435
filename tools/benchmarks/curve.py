"""The picture of `bench.py convert-scale`: time, memory and opening against the number of samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """Points with their spread, and the fitted lines."""
    points, lines = measured["points"], measured["lines"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    _curve(left, points, lines, "wall_s", "packing, start to end", 1)
    left.set(ylabel="s", title="Time to pack")
    _curve(middle, points, lines, "peak_tree_pss", "all processes (shared pages once)", 1e6)
    _curve(middle, points, lines, "peak_parent_rss", "parent alone", 1e6)
    middle.set(ylabel="MB", title="Peak memory")
    _curve(right, points, lines, "open_s", "open_records, fresh process", 1)
    right.set(ylabel="s", title="Time to open the result")
    for axes in (left, middle, right):
        top = axes.get_ylim()[1]
        axes.set(xlabel="samples", xlim=(0, None), ylim=(0, 1.25 * top))  # room for the legend
        axes.set_xticks([int(size) for size in points], [f"{int(size):,}" for size in points], fontsize=8)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _curve(axes: Axes, points: Mapping[str, Any], lines: Mapping[str, Any], key: str, label: str, unit: float) -> None:
    sizes = [int(size) for size in points]
    found = [point[key] for point in points.values()]
    spreads = [one if isinstance(one, dict) else {"median": one, "lowest": one, "highest": one} for one in found]
    medians = [spread["median"] / unit for spread in spreads]
    errors = [
        [median - spread["lowest"] / unit for median, spread in zip(medians, spreads, strict=True)],
        [spread["highest"] / unit - median for median, spread in zip(medians, spreads, strict=True)],
    ]
    drawn = axes.errorbar(sizes, medians, yerr=errors, fmt="o", capsize=3, label=label)
    if key in lines:
        ends = [0, max(sizes)]
        fitted = [(lines[key]["intercept"] + lines[key]["slope"] * size) / unit for size in ends]
        axes.plot(ends, fitted, "--", color=drawn[0].get_color(), linewidth=1)
