"""The page of `bench.py profiler-overhead`."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..report import about, row

_MOST = 0.01  # what being told where the time goes may cost


def page(measured: Mapping[str, Any]) -> str:
    """All of it, in Markdown."""
    settings = measured["settings"]
    lines = [
        "# What it costs to be told where the time goes",
        "",
        *about(measured),
        "The same training run with the clocks of the loader's and the step's stages, as every run has them, and"
        f" without (they are not there at all), in turns, each in a process of its own: {settings['workers']} workers,"
        f" {settings['threads']} threads of torch, on the {'CPU' if settings['device'] == 'cpu' else 'GPU'},"
        f" {settings['epochs']} epochs after one that warms up, without each epoch's first batch and step; rounds:"
        f" {settings['rounds']} (median, lowest … highest)."
        + (" **A quick look: these figures mean little.**" if settings["quick"] else "")
        + " Both sides ended with the same weights, bit by bit. The ratio is of the pairs of each round: noise that"
        " hits a whole round cancels. Processor time is less disturbed by what else runs on the machine.",
    ]
    for case in measured["cases"].values():
        lines += ["", f"## {case['title']}", "", *_table(case), "", _sentence(case["ratios"])]
    return "\n".join(lines) + "\n"


def _table(case: Mapping[str, Any]) -> Iterable[str]:
    yield row("", "time an image", "processor time an image")
    yield row(*["---"] * 3)
    for side, name in (("timed", "with the clocks"), ("bare", "without")):
        figures = case["sides"][side]
        yield row(name, *(_spread(figures[key], 1e6, 1, " µs") for key in ("s_per_image", "cpu_s_per_image")))
    ratios = (_spread(case["ratios"][key], 1, 4, " ×") for key in ("s_per_image", "cpu_s_per_image"))
    yield row("with ÷ without", *ratios)


def _spread(spread: Mapping[str, float], scale: float, digits: int, unit: str) -> str:
    median, lowest, highest = (f"{scale * spread[key]:,.{digits}f}" for key in ("median", "lowest", "highest"))
    return f"{median}{unit}" + (f" ({lowest} … {highest})" if spread["n"] > 1 else "")


def _sentence(ratios: Mapping[str, Mapping[str, float]]) -> str:
    wall, cpu = (ratios[key]["median"] - 1 for key in ("s_per_image", "cpu_s_per_image"))
    kept = "within" if wall <= _MOST else "above"
    return (
        f"The clocks cost {wall:+.2%} of the time and {cpu:+.2%} of the processor time (medians of"
        f" n = {ratios['s_per_image']['n']}): {kept} the {_MOST:.0%} that they may."
    )
