"""The picture of `tools/find_lr.py`: loss against learning rate, with what is suggested."""

from matplotlib.figure import Figure

from engine.finders.learning_rate import Suggestion, Sweep


def figure_of(swept: Sweep, suggestion: Suggestion | None, title: str) -> Figure:
    """The losses of all updates, their smoothed curve, and lines at the suggested rates."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(swept.rates, swept.losses, color="0.75", linewidth=1, label="of each update")
    axes.plot(swept.rates, swept.smoothed(), label=f"mean over {swept.settings.smoothing_updates}")
    if suggestion is not None:
        for name, rate, style in (("minimum", suggestion.minimum, ":"), ("maximum", suggestion.maximum, "--")):
            axes.axvline(rate, linestyle=style, color="0.2", linewidth=1, label=f"{name} {rate:.2g}")
    axes.set(xlabel="learning rate", ylabel="training loss", title=title)
    if swept.settings.growth == "exponential":
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
