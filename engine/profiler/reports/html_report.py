"""report.html: a profile as one page that needs nothing else, no network and no script, light or dark as its reader is.

Names and settings come from outside: whatever is text goes through `safe`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from loaders.atomic import atomic_file

from ..number_text import (
    bytes_text,
    rate_text,
    share_text,
    time_text,
)
from ..record import INCONCLUSIVE, Profile, StageRecord
from . import report_rows as rows
from .page_style import STYLE
from .plots.bars import ceilings_plot, shares_plot, waterfall_plot
from .plots.curves import queue_plot, workers_plot
from .plots.lanes import timeline_plot
from .plots.svg import safe

_WIDE_PX, _NARROW_PX = 840, 336  # of a picture: in the page's column, and on a phone
# the browser itself refuses what would be loaded or run
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Plot = Callable[[Profile, float, str], str]


def write_page(path: Path, profile: Profile) -> None:
    """Put the page at `path`, which is whole at every moment."""
    with atomic_file(path) as file:
        file.write(page(profile).encode())


def page(profile: Profile) -> str:
    """The page as text."""
    subject = rows.subject_text(profile.subject)
    parts = [
        _verdict(profile),
        _ceilings(profile),
        _stages(profile),
        _workers(profile),
        _timeline(profile),
        _queue(profile),
        _what_if(profile),
        _resources(profile),
        _ranks(profile),
        _settings(profile),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Profile: {safe(profile.subject.model)}, {safe(profile.subject.loader)}</title>"
        f"<style>{STYLE}</style></head>\n<body><main><h1>{safe(subject)}</h1>\n{''.join(parts)}</main></body></html>\n"
    )


def _verdict(profile: Profile) -> str:
    verdict = profile.verdict
    named = verdict.bottleneck != INCONCLUSIVE
    group = rows.group_of(verdict.bottleneck) if named else "other"
    side = f" · {safe(verdict.side)}" if verdict.side else ""
    advice = "".join(f"<li>{safe(item.text)}{_gain(item.gain)}</li>" for item in verdict.advice)
    listed = f"<h2>What to do, the largest gain first</h2><ol>{advice}</ol>" if advice else ""
    return (
        f'<header><span class="badge {group}">{safe(verdict.bottleneck)}{side}</span>'
        f'<p class="verdict">{safe(verdict.sentence)}</p>{listed}{_facts(rows.verdict_facts(verdict))}</header>\n'
    )


def _gain(gain: float | None) -> str:
    return "" if gain is None else f' <span class="gain">up to {gain:.2f}×</span>'


def _ceilings(profile: Profile) -> str:
    text = (
        "Images a second: what each part reaches without the others, and the loop with all of them. The line at a bar's"
        " end is the median's 95% interval, a tick above it one round."
    )
    notes = "".join(f'<p class="soft">{safe(note)}</p>' for note in rows.notes(profile))
    return _section("Ceilings", text, _plot(ceilings_plot, profile, "ceilings") + notes)


def _stages(profile: Profile) -> str:
    rank = f" Of rank {profile.shown_rank.rank}." if len(profile.ranks) > 1 else ""
    text = f"Time an image, from one stage to the next.{rank}"
    body = _plot(waterfall_plot, profile, "waterfall")
    if any(stage.critical_share for stage in profile.shown_rank.stages):
        body += '<p class="soft">The loop’s time:</p>' + _plot(shares_plot, profile, "shares")
    headings = ("stage", "in", "wall", "CPU", "p50", "p90", "p99", "ceiling, img/s", "of the loop")
    limiting = profile.verdict.bottleneck
    stages = profile.shown_rank.stages
    table = [(_stage_cells(stage), stage.name == limiting) for stage in stages]
    reasons = [*rows.unseen(stages), *rows.partly_unseen(stages)]
    why = "".join(f"<li>{safe(names)}: {safe(reason)}</li>" for names, reason in reasons)
    listed = f'<div class="soft why">Why something is n/a:<ul>{why}</ul></div>' if why else ""
    return _section("Stages", text, body + _table(headings, table, left=(1,)) + listed)


def _stage_cells(stage: StageRecord) -> list[str]:
    times = (stage.wall_us, stage.cpu_us, stage.p50_us, stage.p90_us, stage.p99_us)
    cells = [stage.name, stage.where, *map(time_text, times), rate_text(stage.ceiling)]
    return [*cells, share_text(stage.critical_share)]


def _workers(profile: Profile) -> str:
    if len(profile.ceilings.loader) < 2 and not rows.by_workers(profile.what_if):
        return ""
    text = "More workers load faster until processors, storage or the step's ceiling end it."
    return _section("Throughput against workers", text, _plot(workers_plot, profile, "workers"))


def _timeline(profile: Profile) -> str:
    if not profile.timeline:
        return ""
    text = "The same, to zoom into, is trace.json: open it at ui.perfetto.dev or chrome://tracing."
    return _section("Timeline of a few steps", text, _plot(timeline_plot, profile, "timeline"))


def _queue(profile: Profile) -> str:
    queue = profile.shown_rank.queue
    body = _plot(queue_plot, profile, "queue") if queue.ready else ""
    text = "Finished batches between loader and loop: none when the loop asks means that it waits."
    note = f'<p class="soft">{safe(queue.note)}</p>' if queue.note else ""
    return _section("Queue", text, body + _facts(rows.queue_facts(profile.shown_rank)) + note)


def _what_if(profile: Profile) -> str:
    if not profile.what_if:
        return ""
    headings = (
        "change",
        "predicted",
        "95% interval",
        "measured",
        "error",
        "epoch",
        "CPU",
        "memory",
        "disk MB/s",
        "cost",
    )
    table = [(rows.what_if_cells(row), False) for row in rows.best_first(profile.what_if)]
    text = "Predicted images a second after one change; what was tried says how wrong the prediction was."
    return _section("What if", text, _table(headings, table))


def _resources(profile: Profile) -> str:
    used = profile.shown_rank.resources
    headings = ("process", "pid", "processors", "RSS", "PSS", "shared", "storage MB/s", "reads/s")
    table = [
        (
            [
                *(process.name, str(process.pid), f"{process.cpus:.2f}", bytes_text(process.rss_bytes)),
                *map(bytes_text, (process.pss_bytes, process.shared_bytes)),
                *map(rate_text, (process.read_mb_per_s, process.reads_per_s)),
            ],
            False,
        )
        for process in used.processes
    ]
    nvml = "" if used.gpu_share is None else " NVML's utilisation is the share of time in which some kernel ran."
    text = f"Over the warm loop.{nvml}"
    body = _facts(rows.resource_facts(profile.shown_rank)) + (_table(headings, table) if table else "")
    return _section("Resources", text, body)


def _ranks(profile: Profile) -> str:
    facts = rows.rank_facts(profile)
    if not facts:
        return ""
    text = "What each rank needs without the others, the slowest first: ranks wait for the slowest."
    return _section("Ranks", text, _facts(facts))


def _settings(profile: Profile) -> str:
    blocks = []
    for name, content in (("Configuration", profile.config), ("Environment", profile.environment)):
        text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
        lines = "\n".join(safe(line) for line in text.splitlines())
        blocks.append(f"<details><summary>{name}</summary><pre>{lines}</pre></details>")
    return _section("Settings", "What was measured, and on what.", "".join(blocks))


def _section(heading: str, text: str, body: str) -> str:
    return f'<section><h2>{safe(heading)}</h2><p class="soft">{safe(text)}</p>{body}</section>\n'


def _plot(plot: Plot, profile: Profile, name: str) -> str:
    """Drawn for two widths, of which the page shows one: text keeps its size."""
    wide, narrow = plot(profile, _WIDE_PX, f"{name}-wide"), plot(profile, _NARROW_PX, f"{name}-narrow")
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def _facts(facts: Iterable[rows.Fact]) -> str:
    items = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _table(headings: Sequence[str], table: Iterable[tuple[list[str], bool]], left: Sequence[int] = ()) -> str:
    """Rows of cells, and whether a row is the one that limits. Cells of the last column may be long, and break."""

    def opened(tag: str, column: int, text: str) -> str:
        style = ' class="left"' if column in left else ' class="left long"' if len(text) > 24 else ""
        return f"<{tag}{style}>{safe(text)}</{tag}>"

    head = "".join(opened("th", column, text) for column, text in enumerate(headings))
    body = "".join(
        f"<tr{' class=limiting' if limiting else ''}>{''.join(opened('td', *cell) for cell in enumerate(cells))}</tr>"
        for cells, limiting in table
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
