"""How wrong predictions were, each that was ever tried: one line of JSON each, in the folder that holds the runs.

`what-if-errors.jsonl` lies beside the runs and not in one, since the same machine predicts for all of them. A line
names the machine and the data, so that a folder shared by machines keeps them apart.
"""

import json
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.profiler.record import Profile, WhatIf
from loaders.cpus import available_cpus
from tools.benchmarks import json_lines

NAME = "what-if-errors.jsonl"


def machine_name() -> str:
    """By which lines of one machine are known."""
    return f"{platform.node()}, {available_cpus()} processors"


def append(folder: Path, profile: Profile, tried: Sequence[WhatIf]) -> None:
    """Add a line for each prediction that was tried, on disk before this returns."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    subject = profile.subject
    folder.mkdir(parents=True, exist_ok=True)
    lines = (
        {
            "time": now,
            "machine": machine_name(),
            "data": subject.path,
            "model": subject.model,
            "loader": subject.loader,
            "change": row.change,
            "now": profile.ceilings.loop.median,
            "predicted": row.predicted,
            "low": row.low,
            "high": row.high,
            "measured": row.measured,
            "error": row.error,
        }
        for row in tried
    )
    json_lines.append(folder / NAME, lines)


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines; what is no line of this kind is left out."""
    lines = []
    for text in json_lines.read_text(folder / NAME):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("error"), int | float):
            lines.append(line)
    return lines


def summary(folder: Path, machine: str | None = None) -> str:
    """The distribution of this machine's errors in a sentence; "" where none was tried."""
    own = machine or machine_name()
    errors = [abs(float(line["error"])) for line in read(folder) if line.get("machine") == own]
    if not errors:
        return ""
    if len(errors) == 1:
        return f"the one prediction tried on this machine so far was off by {errors[0]:.1%}"
    return (
        f"the {len(errors)} predictions tried on this machine so far were off by {statistics.median(errors):.1%} in the"
        f" median, {max(errors):.1%} at most"
    )
