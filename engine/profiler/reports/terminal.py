"""A profile on one screen of a terminal: the verdict first, and under it what it rests on."""

import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..number_text import (
    NOT_SEEN,
    plain,
    rate_interval_text,
    rate_text,
    share_text,
)
from ..record import Profile
from . import report_rows as rows

SCREEN_LINES = 40  # the report and the prompt after it; a taller terminal is used
_WIDE = 110  # columns from which on there are bars beside stages, and all that is predicted
_COLOURS = {"data": "yellow", "copy": "magenta", "compute": "cyan", "other": "bright_black", "loop": "green"}
_FEWEST_PREDICTIONS = 3
# what is tried in turn until all fits: the share of the loop's time under which a stage shares a line with others, how
# many pieces of advice there are, and the characters of a note
_TIGHTER = (
    (0.0, 3, 10_000), (0.0, 3, 400), (0.005, 3, 400), (0.01, 3, 240), (0.02, 3, 240), (0.05, 3, 160), (0.05, 2, 160),
    (0.05, 1, 80), (0.1, 1, 80),
)  # fmt: skip
_CUT = " … (all of it in report.html)"


def print_profile(console: Console, profile: Profile) -> None:
    """Print the report.

    Where it would not fit the screen, the smallest stages share a line, and some predictions and the ends of long notes
    are left to the page. A console that is no terminal and wraps softly gets each sentence in one line.
    """
    width = console.options.max_width
    wanted = min(len(profile.what_if), _FEWEST_PREDICTIONS) + (2 if profile.what_if else 0)
    screen = max(SCREEN_LINES, console.height if console.is_terminal else 0) - 1
    for smallest_share, most_advice, most_of_a_note in _TIGHTER:
        above, below = _above(profile, width, smallest_share, most_of_a_note), _advice(profile, most_advice)
        room = screen - sum(len(console.render_lines(part)) for part in (*above, *below))
        if room >= wanted:
            break
    for part in (*above, *_what_if(profile, width, max(room, 2)), *below):
        if isinstance(part, Table) or console.is_terminal or not console.soft_wrap:
            console.print(part, soft_wrap=False)
        else:
            text = part.renderable if isinstance(part, Padding) else None  # _indented, which would be cut off
            console.print(Text.assemble("  ", text) if isinstance(text, Text) else part)


def _above(profile: Profile, width: int, smallest: float, most_of_a_note: int) -> list[RenderableType]:
    """All that stands over the predictions: stages of a share below `smallest` in one line, notes cut."""
    return [
        Text(plain(profile.verdict.sentence), style="bold"),
        Text(rows.subject_text(profile.subject), style="dim"),
        _ceilings(profile, width),
        *_reasons(NOT_SEEN, rows.unseen_ceilings(profile)),
        *_notes(rows.notes(profile), most_of_a_note),
        *_stages(profile, width, smallest),
        *_reasons(NOT_SEEN, _why_not_seen(profile, width)),
        _facts("Queue", rows.queue_facts(profile.shown_rank), profile.shown_rank.queue.note),
        _facts("Resources", rows.resource_facts(profile.shown_rank)),
        *_ranks(profile),
    ]


def _ceilings(profile: Profile, width: int) -> RenderableType:
    table = _table(width, "Ceilings, img/s", "median", "95% interval", "")
    had = [(row, row.rate) for row in rows.ceiling_rows(profile) if row.rate is not None]
    most = max(rate.median for _, rate in had) or 1.0
    for row, rate in had:
        bar = Text(_bar(rate.median / most, max(8, width - 60)), style=_COLOURS[row.group])
        table.add_row(row.label, rate_text(rate.median), rate_interval_text(rate), bar)
    return table


def _notes(notes: Sequence[str], most: int) -> list[RenderableType]:
    """What whoever measured had to say, each note of `most` characters at most."""
    text = " · ".join(textwrap.shorten(plain(note), most, placeholder=_CUT) for note in notes)
    return [_indented(text)] if notes else []


def _stages(profile: Profile, width: int, smallest: float) -> list[RenderableType]:
    told, limiting = profile.shown_rank, profile.verdict.bottleneck
    heading = "Stages, µs/img" if len(profile.ranks) == 1 else f"Rank {told.rank}, µs/img"
    wide = width >= _WIDE
    table = _table(width, heading, "in", "wall", "CPU", "p50", "p90", "p99", "img/s", "of loop", *([""] * wide))
    table.columns[1].justify = "left"
    hidden = []
    for stage in rows.seen(told.stages):
        share = stage.critical_share
        if share is not None and share < smallest and stage.name != limiting:
            hidden.append(f"{plain(stage.name)} {share_text(share)}")
            continue
        name = Text(plain(stage.name) + (" ◀" if stage.name == limiting else ""))
        times = [rate_text(us) for us in (stage.wall_us, stage.cpu_us, stage.p50_us, stage.p90_us, stage.p99_us)]
        bar = Text(_bar(share or 0, max(8, width - 90)), style=_COLOURS[rows.group_of(stage.name)])
        cells = [name, stage.where, *times, rate_text(stage.ceiling), share_text(share), *([bar] * wide)]
        table.add_row(*cells, style="bold" if stage.name == limiting else "")
    return [table, *([_indented("small: " + " · ".join(hidden))] if hidden else [])]


def _why_not_seen(profile: Profile, width: int) -> list[rows.Fact]:
    """Of whole stages, and on a wide screen of single numbers."""
    stages = profile.shown_rank.stages
    return rows.unseen(stages) + (rows.partly_unseen(stages) if width >= _WIDE else [])


def _reasons(heading: str, facts: Sequence[rows.Fact]) -> list[RenderableType]:
    text = " · ".join(f"{names}: {reason}" for names, reason in facts)
    return [_indented(f"{heading}  {text}")] if facts else []


def _facts(heading: str, facts: Iterable[rows.Fact], note: str = "") -> RenderableType:
    text = Text(" · ".join(" ".join(fact).strip() for fact in facts))
    if note:
        text.append(f" ({plain(note)})", style="dim")
    return Text.assemble((f"{heading}  ", "bold"), text)


def _ranks(profile: Profile) -> list[RenderableType]:
    """The slowest and the fastest rank."""
    facts = rows.rank_facts(profile)
    if len(facts) > 2:
        facts = [facts[0], ("…", ""), facts[-1]]
    return [_facts("Ranks", facts)] if facts else []


def _what_if(profile: Profile, width: int, num_lines: int) -> list[RenderableType]:
    """As many predictions as `num_lines` have room for under their heading, at least one."""
    if not profile.what_if:
        return []
    listed = rows.best_first(profile.what_if)
    wide = width >= _WIDE
    more = ("CPU", "memory", "disk", "cost") if wide else ()
    table = _table(width, "What if", "img/s", "95% interval", "measured", "error", "epoch", *more)
    table.columns[0].max_width = max(12, width - (92 if wide else 52))
    shown = listed if len(listed) < num_lines else listed[: max(1, num_lines - 2)]
    for row in shown:
        table.add_row(*rows.what_if_cells(row, " MB/s")[: len(table.columns)])
    hidden = len(listed) - len(shown)
    return [table, *([_indented(f"and {hidden} more in report.html")] if hidden else [])]


def _advice(profile: Profile, most: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for number, item in enumerate(profile.verdict.advice[:most]):
        gain = "" if item.gain is None else f" (up to {item.gain:.2f}×)"
        lines.append(Text.assemble(("Advice  " if number == 0 else "        ", "bold"), f"{plain(item.text)}{gain}"))
    return lines


def _table(width: int, heading: str, *columns: str) -> Table:
    """Plain columns, all but the first to the right, headings in bold."""
    gap = 2 if width >= _WIDE else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _bar(share: float, length: int) -> str:
    """A bar of `share` of `length` characters, to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * length * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _indented(text: str) -> RenderableType:
    return Padding(Text(text, style="dim"), (0, 0, 0, 2), expand=False)
