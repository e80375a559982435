"""What the self-test found: on the terminal, as a page with a picture, and as figures."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.profiler.record import INCONCLUSIVE
from engine.profiler.self_test.cells import MOST_FOR_OTHERS, PLANTED, SIZES, Outcome
from engine.profiler.self_test.scores import Line, Scores, confusion, counted, truths
from tools.benchmarks.report import row, write_text

from .self_test_plot import draw

_TITLES = {
    0.0: "unchanged runs",
    0.5: "half the slack: the verdict must stay",
    1.0: "just the slack: either is right",
    2.0: "twice the slack: the planted stage must be named",
}
_WIDTH_OF_A_FILE = 200
_KEPT = {True: "kept", False: "BROKEN", None: "not tested"}


def show(console: Console, outcomes: Sequence[Outcome], scores: Scores) -> None:
    """A confusion matrix for each size, then what is promised and what was found."""
    if not console.is_terminal:  # a file is as wide as what is in it; columns would be cut off
        console.width = max(console.width, _WIDTH_OF_A_FILE)
    for title, rows, names in tables(outcomes):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("planted ↓  named →", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for planted, counts, right in rows:
            cells = [
                Text(str(count or "·"), style="green" if name in right else "red" if count else "dim")
                for name, count in zip(names, counts, strict=True)
            ]
            table.add_row(planted, *cells)
        console.print(table)
    for promise in scores.promises():
        style = "" if promise.kept is None else "green" if promise.kept else "bold red"
        console.print(Text(f"{_KEPT[promise.kept]}: {promise.text}: {promise.found}", style=style), soft_wrap=False)
    for line in (*_lines(scores), *_left_out(scores)):
        console.print(line, markup=False)
    for key, named in scores.wrong_cells:
        console.print(f"wrong: {key} → {named}", markup=False)


def tables(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[tuple[str, list[int], set[str]]], list[str]]]:
    """(title, rows, names) for each size: rows of what was planted, how often each name was given, which are right."""
    kept = counted(outcomes)
    for size in (*SIZES, 0.0):
        of_size = [outcome for outcome in kept if outcome.cell.size == size]
        if not of_size:
            continue
        counts = confusion(of_size)
        known = [name for name in (*PLANTED, INCONCLUSIVE) if any(named == name for _, named in counts)]
        names = [*known, *sorted({named for _, named in counts} - set(known))]
        rows = []
        for planted in PLANTED:
            of_stage = [outcome for outcome in of_size if outcome.cell.planted == planted]
            if of_stage:
                right = set().union(*(truths(outcome) for outcome in of_stage))
                rows.append((planted, [counts[planted, name] for name in names], right))
        yield _TITLES[size], rows, names


def as_json(
    outcomes: Sequence[Outcome], scores: Scores, machine: Mapping[str, Any], day: str, num_cells: int
) -> dict[str, Any]:
    """Everything, cell by cell."""
    return {
        "date": day,
        "machine": machine,
        "num_cells": num_cells,
        "scores": asdict(scores),
        "promises": [asdict(promise) for promise in scores.promises()],
        "left_out": _left_out(scores),
        "lines": _lines(scores),
        "cells": [outcome.as_json() for outcome in outcomes],
    }


def write(paths: Mapping[str, Path], outcomes: Sequence[Outcome], told: Mapping[str, Any]) -> None:
    """The figures, the picture and the page."""
    write_text(paths["json"], _json_text(told))
    draw(paths["png"], outcomes)
    write_text(paths["md"], "\n".join(page(outcomes, told, paths["png"].name)) + "\n")


def _json_text(told: Mapping[str, Any]) -> str:
    """A line a cell, since there are a thousand."""
    head = json.dumps({**told, "cells": []}, indent=2)
    cells = ",\n".join(f"    {json.dumps(cell)}" for cell in told["cells"])
    start, end = head.rsplit('"cells": []', 1)
    return f'{start}"cells": [\n{cells}\n  ]{end}\n'


def page(outcomes: Sequence[Outcome], told: Mapping[str, Any], picture: str) -> Iterable[str]:
    """Lines of Markdown."""
    machine, scores = told["machine"], told["scores"]
    yield from ("# The profiler's self-test", "")
    yield (
        f"`{machine['command']}`, {told['date']}, commit `{machine['commit']}`. {machine['cpus']} cores"
        f" ({machine['processor']}), Python {machine['python']}, torch {machine['versions']['torch']};"
        f" {len(told['cells'])} of {told['num_cells']} cells were measured. Every cell is in the .json beside this."
    )
    yield from (
        "",
        "How to read it: [the self-test](../profiling.md#the-self-test).",
        "",
        f"![the matrix]({picture})",
        "",
    )
    yield row("promise", "found", "")
    yield row(*["---"] * 3)
    for promise in told["promises"]:
        yield row(promise["text"], promise["found"], _KEPT[promise["kept"]])
    yield ""
    yield from (f"* {line}" for line in (*told["lines"], *told["left_out"]))
    for title, rows, names in tables(outcomes):
        yield from (
            "",
            f"## {title[:1].upper()}{title[1:]}",
            "",
            row("planted", *names),
            row(*["---"] * (1 + len(names))),
        )
        for planted, counts, right in rows:
            cells = [
                f"**{count}**" if name in right else str(count or "") for name, count in zip(names, counts, strict=True)
            ]
            yield row(planted, *cells)
    if scores["wrong_cells"]:
        yield from ("", "## Wrong", "")
        yield from (f"* `{key}` was taken for {named}" for key, named in scores["wrong_cells"])


def _lines(scores: Scores) -> list[str]:
    lines = [
        f"delays that {kind} were recovered with {_line_text(line)}"
        for kind, line in scores.recovered_by_kind.items()
        if line is not None
    ]
    if scores.slowed is not None:
        lines.append(
            f"above the slack the loop became slower as it should, by the busiest of those who work at once, with"
            f" {_line_text(scores.slowed)}"
        )
    if scores.at.total:
        lines.append(f"at the slack itself {scores.at.right} of {scores.at.total} named one of the two, or nothing")
    return lines


def _line_text(line: Line) -> str:
    return (
        f"slope {line.slope:.3f} ({line.low:.3f} … {line.high:.3f}), {line.intercept:+,.0f} µs,"
        f" R² {line.r_squared:.4f}, {line.num_points} cells"
    )


def _left_out(scores: Scores) -> list[str]:
    of_group = "; ".join(f"{group}: {count}" for group, count in scores.counted.items())
    lines = [f"cells that count: {of_group or 'none'}"]
    if scores.disturbed.total:
        lines.append(
            f"{scores.disturbed.total} cells do not count: other programs used more than {MOST_FOR_OTHERS:g} processors"
            " meanwhile, and work then takes longer than was planted. They named what is right"
            f" {scores.disturbed.right} times, nothing {scores.disturbed.abstained} times, something else"
            f" {scores.disturbed.wrong} times"
        )
    if scores.unseen:
        lines.append(f"{scores.unseen} cells could not be planted: the loader does not show the stage")
    return lines
