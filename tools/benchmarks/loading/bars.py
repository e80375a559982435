"""The picture of `bench.py load`: images a second of every side, a case beside the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

_OURS, _PEER = "tab:blue", "tab:gray"
_FLOAT_ALPHA = 0.5


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """Bars with their range, and how many times as fast ours is."""
    cases = list(measured["cases"].values())
    num_bars = max(len(case["sides"]) for case in cases)
    size = (6.5 * len(cases), 1.6 + 0.36 * num_bars)
    figure, all_axes = plt.subplots(1, len(cases), figsize=size, layout="constrained", squeeze=False)
    for axes, case in zip(all_axes[0], cases, strict=True):
        _case(axes, case, num_bars)
    handles = [
        Patch(color=_OURS, label="Feedrate"),
        Patch(color=_PEER, label="others"),
        Patch(color=_PEER, alpha=_FLOAT_ALPHA, label="paler: float32, normalised"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _case(axes: Axes, case: Mapping[str, Any], num_bars: int) -> None:
    sides = sorted(case["sides"].items(), key=lambda item: item[1]["s_per_image"]["median"])
    for place, (name, side) in enumerate(sides):
        spread = side["s_per_image"]
        rate, low, high = (1 / spread[key] for key in ("median", "highest", "lowest"))
        color, alpha = _OURS if side["is_ours"] else _PEER, 1 if side["output"] == "uint8" else _FLOAT_ALPHA
        axes.barh(place, rate, color=color, alpha=alpha)
        axes.errorbar(rate, place, xerr=[[rate - low], [high - rate]], color="black", capsize=2, linewidth=1)
        reference = case["references"].get(side["output"], ("", ""))[0]
        times = case["speedups"].get(reference, {}).get(name)
        text = f" {rate:,.0f}" + (f"   {reference} {times['median']:.2f}×" if times else "")
        axes.text(high, place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(sides)), [name for name, _ in sides], fontsize=9)
    axes.set(xlabel="images a second", xlim=(0, 1.45 * axes.get_xlim()[1]), ylim=(num_bars - 0.4, -0.6))
    axes.set_title(case["title"], fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
