"""docs/profiling.md explains every number that a report shows."""

import re

import pytest
from commands import REPOSITORY
from shown_profiles import full

from engine.profiler.record import SCHEMA_VERSION, STAGES
from engine.profiler.reports import report_rows as rows

_TEXT = " ".join(re.sub(r"[*`]", "", (REPOSITORY / "docs" / "profiling.md").read_text()).lower().split())


def _names():
    profile = full()
    yield from (row.label.replace("8 workers", "n workers") for row in rows.ceiling_rows(profile))
    yield from STAGES
    for facts in (rows.queue_facts(profile.shown_rank), rows.resource_facts(profile.shown_rank)):
        for name, _ in facts:
            yield from name.split(" / ")
    yield from (
        "verdict",
        "margin",
        "confidence",
        "ranks",
        "wall",
        "p99",
        "predicted",
        "measured",
        "error",
        "epoch",
        "cost",
    )
    yield from ("--fail-if-slower", "--allow-different", "report.json", "report.html", "trace.json")


@pytest.mark.parametrize("name", sorted(set(_names())))
def test_what_a_report_shows_is_explained(name):
    assert re.search(rf"(?<![a-z]){re.escape(name.lower())}(?![a-z])", _TEXT), name


def test_it_tells_the_schema():
    assert f"schema_version {SCHEMA_VERSION};" in _TEXT
