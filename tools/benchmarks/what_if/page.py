"""The page and the picture of `bench.py what-if`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import ScalarFormatter

from ..report import about, row
from .compare import KINDS, errors_of, sentence

_MOVED = 0.1
_MEDIAN, _P95, _FEWEST = 0.05, 0.15, 20  # what the errors must keep to, over at least so many
_STYLES = {"workers": ("C0", "o"), "batch": ("C1", "s"), "format": ("C2", "^"), "loader": ("C3", "D")}


def page(measured: Mapping[str, Any], picture: str) -> str:
    """All of it, in Markdown."""
    settings = measured["settings"]
    changes = [change for base in measured["bases"].values() for change in base["changes"]]
    errors, plain = errors_of(changes), errors_of(changes, "plain_error")
    kept = errors["median"] <= _MEDIAN and errors["p95"] <= _P95 and errors["n"] >= _FEWEST
    lines = [
        "# How wrong predictions of changes are",
        "",
        *about(measured),
        "Of each base were measured, in turns with each other: the step alone, the loader alone by its workers, the"
        " loop, and what tools/profile.py asks of one side alone (the step with another batch, another loader, 256 of"
        " the images packed in another format); and the loops with one change each, of formats over up to 2,048 of the"
        " images. Each change was predicted from the former: a loop with it was never seen, nor, for another number of"
        " workers, the loader alone with it. What slows the machine meanwhile slows a round of all: this is how exact"
        f" the model is, not how steady the machine. About {settings['minutes']:g} minutes a base; rounds:"
        f" {settings['rounds']}." + (" **A quick look: these figures mean little.**" if settings["quick"] else ""),
        "",
        f"**{sentence(errors)}.** They are to be off by no more than {_MEDIAN:.0%} in the"
        f" median and {_P95:.0%} at the 95th percentile over {_FEWEST} or more: {'kept' if kept else 'not kept'}. That"
        " error is of predicted ÷ base against measured ÷ base, the latter round by round. Of the plain rates:"
        f" {sentence(plain)}.",
        "",
        _beside_no_change(changes),
        "",
        f"![predicted against measured, with intervals]({picture})",
        "",
        row("change of", "configurations", "median error", "95th percentile", "largest", "within the interval"),
        row(*["---"] * 6),
        *(_summary(kind, [change for change in changes if change["kind"] == kind]) for kind in KINDS),
    ]
    for base in measured["bases"].values():
        lines += ["", f"## {base['text']}", "", _base(base), "", *_table(base["changes"])]
    return "\n".join(lines) + "\n"


def _beside_no_change(changes: list[Mapping[str, Any]]) -> str:
    """What a prediction that nothing changes would have been off by: many changes bring little."""
    off = [abs(1 / change["measured_ratio"] - 1) for change in changes]
    moved = [change for change in changes if abs(change["measured_ratio"] - 1) > _MOVED]
    text = (
        f"Saying of all that nothing changes would have been off by {np.median(off):.1%} in the median and"
        f" {np.percentile(off, 95):.1%} at the 95th percentile."
    )
    if not moved:
        return text
    still = float(np.median([abs(1 / change["measured_ratio"] - 1) for change in moved]))
    return (
        f"{text} Of the {len(moved)} changes that moved the loop by more than {_MOVED:.0%}, predictions were off by"
        f" {errors_of(moved)['median']:.1%} in the median, and that saying by {still:.1%}."
    )


def _summary(kind: str, changes: list[Mapping[str, Any]]) -> str:
    if not changes:
        return row(kind, "0", *["n/a"] * 4)
    errors = errors_of(changes)
    cells = (f"{errors[key]:.1%}" for key in ("median", "p95", "largest"))
    return row(kind, str(errors["n"]), *cells, f"{errors['within']:.0%}")


def _base(base: Mapping[str, Any]) -> str:
    found = base["profile"]
    loader = ", ".join(f"{median(rounds):,.0f} with {workers}" for workers, rounds in found["loader"].items())
    return (
        f"As profiled, in img/s: the step alone {median(found['step']):,.0f}, the loader alone {loader}, the loop"
        f" {median(found['loop']):,.0f}; the loop beside its changes {median(base['base']):,.0f}. Load before:"
        f" {base['load_1_min']:.2f}."
    )


def _table(changes: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    yield row(
        "change", "predicted, img/s", "95% interval", "÷ base", "measured, img/s", "÷ base", "error", "plain error"
    )
    yield row(*["---"] * 8)
    for change in changes:
        yield row(
            change["change"],
            f"{change['predicted']:,.0f}",
            f"{change['low']:,.0f} … {change['high']:,.0f}",
            f"{change['ratio']:.3f}",
            f"{median(change['measured']):,.0f} ({min(change['measured']):,.0f} … {max(change['measured']):,.0f})",
            f"{change['measured_ratio']:.3f}",
            f"{change['error']:+.1%}" + ("" if change["is_within"] else " (outside)"),
            f"{change['plain_error']:+.1%}",
        )


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """Predicted against measured, each as its ratio to the base's loop, with the predicted interval."""
    figure, axes = plt.subplots(figsize=(7, 6.5), layout="constrained")
    changes = [change for base in measured["bases"].values() for change in base["changes"]]
    for kind in KINDS:
        some = [change for change in changes if change["kind"] == kind]
        if some:
            colour, mark = _STYLES[kind]
            x, y = [change["measured_ratio"] for change in some], [change["ratio"] for change in some]
            below = [change["ratio"] - change["low"] / change["now"] for change in some]
            above = [change["high"] / change["now"] - change["ratio"] for change in some]
            axes.errorbar(x, y, yerr=[below, above], fmt=mark, color=colour, capsize=3, alpha=0.8, label=kind)
    every = [change[key] for change in changes for key in ("ratio", "measured_ratio")]
    ends = [0.9 * min(every), 1.1 * max(every)]
    axes.plot(ends, ends, color="0.5", linewidth=1)
    for share in (-_P95, _P95):
        axes.plot(ends, [(1 + share) * end for end in ends], ":", color="0.6", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, title="One change at a time")
    axes.set(xlabel="measured: loop with the change ÷ loop without", ylabel="predicted, with its 95 % interval")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(ScalarFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend(title=f"dotted: ±{_P95:.0%}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
