"""What `bench.py load` measured, for people: the page, and the tables on the screen."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ..report import about, memory_text, rate_text, row, spread_text


def page(measured: Mapping[str, Any], picture: str) -> str:
    """The page, with `picture` in it."""
    settings = measured["settings"]
    lines = [
        "# Loading beside others",
        "",
        *about(measured),
        f"Images: {settings['images']}. {settings['workers']} workers or threads a side, RandomResizedCrop and flip,"
        f" training order, everything in the page cache unless a case says cold. Each run is a process of its own; the"
        f" sides took turns; rounds: {settings['rounds']} (median, lowest … highest). Timed is a window of at least"
        f" {settings['seconds']:g} s in the middle of the stream. *First batch* counts from the start of the process,"
        " imports and compiling included. *Processor time* is of all processes. *Memory* is the largest sum over all"
        " processes seen in a round of its own, a shared page split among those that share it; *held* leaves mapped"
        " files out, which the system may drop. Float rows come after normalisation, others are uint8.",
        "",
        f"![images a second]({picture})",
    ]
    for case in measured["cases"].values():
        lines += ["", f"## {case['title']}", "", *_about_case(case), "", *_markdown(case)]
        if case["skipped"]:
            lines.append("")
        lines += [*(f"`{side}` was skipped: {why}  " for side, why in case["skipped"].items())]
    titles = {name: side["title"] for case in measured["cases"].values() for name, side in case["sides"].items()}
    lines += ["", "## The sides", "", "| side | what |", "| --- | --- |"]
    lines += [row(f"`{name}`", title) for name, title in titles.items()]
    return "\n".join(lines).rstrip() + "\n"


def tables(measured: Mapping[str, Any], console: Console) -> None:
    """The same tables, on the screen."""
    for case in measured["cases"].values():
        table = Table(title=case["title"], title_justify="left")
        for place, column in enumerate(_columns(case)):
            table.add_column(column, justify="left" if place < 2 else "right")
        for cells in _rows(case):
            table.add_row(*cells)
        console.print(table)
        for side, why in case["skipped"].items():
            console.print(f"{side} was skipped: {why}", markup=False)


def _about_case(case: Mapping[str, Any]) -> Iterator[str]:
    load = max(case["load_1_min"])
    options = f" (`convert.py` {' '.join(case['options'])})" if case["options"] else ""
    kilobytes = {form: f"{mean / 1e3:,.1f} kB" for form, mean in case["bytes_per_sample"].items()}
    marked = f", {kilobytes['restarts']} with restart markers," if "restarts" in kilobytes else ""
    yield (
        f"{case['num_samples']:,} samples of {kilobytes['beton']}{marked}{options}, batches of"
        f" {case['batch_size']}{', evicted from the page cache before each run' if case['is_cold'] else ''}."
        f" Load of the machine before a round: {load:.2f} at most."
    )


def _columns(case: Mapping[str, Any]) -> list[str]:
    outputs = {side["output"] for side in case["sides"].values()}
    pairs = [pair for output, pair in case["references"].items() if output in outputs]
    ours, peers = (" or ".join(pair[which] for pair in pairs) for which in (0, 1))
    columns = ["side", "output", "img/s", "processor time", "first batch", "memory", "held"]
    return [*columns, f"{ours} ÷ it", f"it ÷ {peers}"] + (["MB/s"] if case["is_cold"] else [])


def _markdown(case: Mapping[str, Any]) -> Iterator[str]:
    columns = _columns(case)
    yield row(*columns)
    yield row(*["---"] * len(columns))
    for cells in _rows(case):
        yield row(*cells)


def _rows(case: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, side in case["sides"].items():
        ours, peer = case["references"].get(side["output"], ("", ""))
        yield [
            name,
            side["output"],
            rate_text(side["s_per_image"], num_decimals=0),
            _micros_text(side["cpu_s_per_image"]["median"]),
            f"{side['first_batch_s']['median']:,.1f} s",
            memory_text(side),
            f"{side['peak_tree_held'] / 1e6:,.0f} MB",
            _ratio_text(case["speedups"].get(ours, {}).get(name)),
            _ratio_text(case["speedups"].get(name, {}).get(peer)),
        ] + (
            [f"{case['bytes_per_sample']['beton'] / side['s_per_image']['median'] / 1e6:,.0f}"]
            if case["is_cold"]
            else []
        )


def _micros_text(seconds: float) -> str:
    return f"{seconds * 1e6:,.{0 if seconds > 1e-4 else 1}f} µs"


def _ratio_text(spread: Mapping[str, float] | None) -> str:
    return spread_text(spread, "×") if spread else ""
