"""The page of `bench.py profiler-overhead`."""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.profiler.number_text import time_text

from ..report import about, row
from .compare import MOST

_FEW = 10  # pairs, of which an interval says nothing yet
_KEYS = ("s_per_image", "cpu_s_per_image")


def page(measured: Mapping[str, Any]) -> str:
    """All of it, in Markdown."""
    settings = measured["settings"]
    lines = [
        "# What it costs to be told where the time goes",
        "",
        *about(measured),
        "The same training run, whose epochs have the clocks of the loader's and the step's stages in turns, as every"
        " run has them, and have none (they are not there at all; with, without, without, with …):"
        f" {settings['workers']} workers, {settings['threads']} threads of torch, on the"
        f" {'CPU' if settings['device'] == 'cpu' else 'GPU'}, {settings['pairs']} pairs of epochs a run after two that"
        f" warm up, {settings['rounds']} runs, each in a process of its own."
        + (" **A quick look: these figures mean little.**" if settings["quick"] else "")
        + " All runs ended with the same weights, bit by bit, though what one timed the next did not. A ratio is of two"
        " epochs next to each other; given are the median and its 95 % interval by drawing the pairs again. Wall time"
        " is without each epoch's first batch and step. *Counted* is what each thing costs by itself, times how often"
        " it is done.",
    ]
    for case in measured["cases"].values():
        lines += ["", f"## {case['title']}", "", *_table(case), "", _sentence(case["costs"]), "", *_counted(case)]
    return "\n".join(lines) + "\n"


def _table(case: Mapping[str, Any]) -> Iterable[str]:
    yield row("", "time an image", "processor time an image")
    yield row(*["---"] * 3)
    for side, name in (("timed", "with the clocks"), ("bare", "without")):
        yield row(name, *(_spread(case["sides"][side][key]) for key in _KEYS))
    yield row("with ÷ without", *(f"{_interval(case['costs'][key])}, n = {case['costs'][key]['n']}" for key in _KEYS))


def _spread(spread: Mapping[str, float]) -> str:
    median, lowest, highest = (f"{1e6 * spread[key]:,.1f}" for key in ("median", "lowest", "highest"))
    return f"{median} µs ({lowest} … {highest})"


def _interval(cost: Mapping[str, float]) -> str:
    return f"{cost['median'] - 1:+.2%} ({cost['low'] - 1:+.2%} … {cost['high'] - 1:+.2%})"


def judged(cost: Mapping[str, float]) -> str:
    """Whether an interval tells that what may be spent is kept."""
    if cost["n"] < _FEW:
        return f"of {cost['n']} pairs nothing can be said"
    if cost["high"] - 1 <= MOST:
        return f"at most {MOST:.0%} is shown"
    return (
        f"more than {MOST:.0%} is shown" if cost["low"] - 1 > MOST else f"whether it is within {MOST:.0%} is not shown"
    )


def _sentence(costs: Mapping[str, Mapping[str, float]]) -> str:
    wall, cpu = (f"{_interval(costs[key])}: {judged(costs[key])}" for key in _KEYS)
    return f"The clocks cost, of processor time, {cpu}. Of wall time, {wall}."


def _counted(case: Mapping[str, Any]) -> Iterable[str]:
    found = case["counted"]
    own_us, batch_size, share = found["own_us_per_step"], found["batch_size"], found["share"]
    loader = found["loader_us_per_image"]
    all_us = own_us + batch_size * max(0.0, loader["median"])
    yield (
        f"Counted: a span of the step {time_text(found['span_us'])} (five a step), a batch at the meter"
        f" {time_text(found['batch_us'])}, a line of the log {time_text(found['line_us'])} (one in 20 steps): together"
        f" {time_text(own_us)} a step in the loop's own thread. The loader's stages: {loader['median']:.2f} µs an image"
        f" ({loader['low']:.2f} … {loader['high']:.2f}, n = {loader['n']} pairs of epochs of the loader alone), in its"
        f" own threads. Of this step's {time_text(found['step_us'])} of processor time that is {share['median']:.2%}"
        f" ({share['low']:.2%} … {share['high']:.2%}). It is {MOST:.0%} of a step of {time_text(all_us / MOST)} of"
        f" processor time with batches of {batch_size}; and of the loop's thread alone, {MOST:.0%} of a step of"
        f" {time_text(own_us / MOST)}. Reading memory and processor use at an epoch's end takes"
        f" {time_text(found['epoch_us'])}, {time_text(found['epoch_us_per_step'])} a step of these short epochs."
    )
