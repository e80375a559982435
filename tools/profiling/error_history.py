"""How wrong predictions were, each that was ever tried: one line of JSON each, in the folder that holds the runs.

`what-if-errors.jsonl` lies beside the runs and not in one, since the same machine predicts for all of them. A line
names the machine and the data, so that a folder shared by machines keeps them apart.
"""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.profiler.record import Profile, WhatIf
from loaders.cpus import available_cpus

NAME = "what-if-errors.jsonl"


def machine_name() -> str:
    """By which lines of one machine are known."""
    return f"{platform.node()}, {available_cpus()} processors"


def append(folder: Path, profile: Profile, tried: Sequence[WhatIf]) -> None:
    """Add a line for each prediction that was tried, on disk before this returns."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    subject = profile.subject
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "a") as file:
        for row in tried:
            line = {
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
            file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines; what is no line of this kind, such as one that was cut, is left out."""
    path = folder / NAME
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
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
