"""What the profiler prints and writes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loaders.atomic import atomic_file

from .measure import Measurement, Rate
from .verdict import Verdict

SCHEMA_VERSION = 1


def print_report(console: Console, measured: Measurement, verdict: Verdict) -> None:
    """A table of the three rates, and the verdict under it."""
    table = Table(title="What the run waits for", title_justify="left")
    table.add_column("measured")
    for heading in ("img/s (median)", "lowest - highest", "n"):
        table.add_column(heading, justify="right")
    rows = {
        "step alone, synthetic batch": measured.step_alone,
        "loader alone": measured.loader_alone,
        "both together": measured.together,
    }
    for name, rate in rows.items():
        table.add_row(name, f"{rate.median:,.0f}", f"{rate.low:,.0f} - {rate.high:,.0f}", str(len(rate.rounds)))
    console.print(table)
    console.print(
        f"headroom of the loader {verdict.headroom:.2f}× · data-wait {measured.data_wait_share:.0%}", markup=False
    )
    console.print(verdict.sentence, markup=False, style="bold")


def write_report(path: Path, measured: Measurement, verdict: Verdict, context: dict[str, Any]) -> None:
    """report.json: the rates of every round, the verdict, and what was measured on what (`context`)."""
    rates = {name: _rate_record(getattr(measured, name)) for name in ("step_alone", "loader_alone", "together")}
    content = {
        "schema_version": SCHEMA_VERSION,
        "images_per_s": rates,
        "data_wait_share": measured.data_wait_share,
        "verdict": asdict(verdict),
        **context,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _rate_record(rate: Rate) -> dict[str, Any]:
    return {"median": rate.median, "lowest": rate.low, "highest": rate.high, "rounds": list(rate.rounds)}
