"""Where the time of a run went, for people: a table in a terminal, and a few plain lines elsewhere."""

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..profiler.record import COMPUTE_STAGES, LOADER_STAGES
from ..profiler.time_book import AROUND, UNDIVIDED, TimeSpent

_GROUPS = {
    UNDIVIDED: (*LOADER_STAGES, UNDIVIDED),
    "step": COMPUTE_STAGES,
    "around it": (*AROUND, "other"),
}
_BAR_CHARACTERS = 30
# a rank is far slower than the others where what it needs by itself is so many times theirs, and this share of the
# time that the loop took more. It takes more than a profile's SLOWER: a training has one number a rank, and no rounds
# by which to tell it from noise
_FAR_TIMES = 1.5
_FAR_SHARE = 0.1


def show_time_spent(console: Console, spent: TimeSpent, world_size: int) -> None:
    """The shares of all parts, which together are 100.0 %, of the rank that speaks."""
    where = "" if world_size == 1 else ", rank 0"
    head = f"where the time went: {spent.wall_s:,.1f} s{where}"
    shares = _in_tenths_of_a_percent(spent.shares())
    notes = _notes(spent)
    if console.is_terminal:
        console.print(_table(head, shares, spent.wall_s, world_size), soft_wrap=False)
    else:
        console.print(head, markup=False)
        for group, parts in _GROUPS.items():
            seen = [part for part in parts if part in shares]
            inner = ", ".join(f"{_label(part, world_size)} {shares[part] / 10:.1f}%" for part in seen)
            inner = "" if seen == [UNDIVIDED] else f" = {inner}" if inner else ""
            console.print(f"  {group} {sum(shares[part] for part in seen) / 10:.1f}%{inner}", markup=False)
    for note in notes:
        console.print(f"  {note}", markup=False)


def far_slower_rank(own_s: Sequence[float], train_s: float) -> int | None:
    """The rank whose own time is far above the others', if there is one; `train_s`: what the loop took.

    What ranks need by themselves they wait for in each other, so only this tells who keeps whom waiting.
    """
    if len(own_s) < 2:
        return None
    slowest = max(range(len(own_s)), key=lambda rank: own_s[rank])
    others_s = statistics.median(own for rank, own in enumerate(own_s) if rank != slowest)
    is_far = own_s[slowest] > _FAR_TIMES * others_s and own_s[slowest] - others_s > _FAR_SHARE * train_s
    return slowest if is_far else None


def slow_rank_line(own_s: Sequence[float], train_s: float) -> str | None:
    """What to say of that rank; None where there is none."""
    slow = far_slower_rank(own_s, train_s)
    if slow is None:
        return None
    others_s = statistics.median(own for rank, own in enumerate(own_s) if rank != slow)
    return (
        f"rank {slow} keeps the others waiting: loading and computing took it {own_s[slow]:,.1f} s by itself,"
        f" the others {others_s:,.1f} s; see what else its machine does, or its disk"
    )


def _notes(spent: TimeSpent) -> list[str]:
    """Why parts are missing."""
    notes = []
    if not sum(spent.loader_s.values()):
        notes.append("stages of loading: n/a, this loader shows none")
    elif missing := [stage for stage in LOADER_STAGES if stage not in spent.loader_s]:
        notes.append(f"{', '.join(missing)}: n/a, this loader has no such stages or does not show them")
    if spent.loader_s and spent.shares()[UNDIVIDED]:
        notes.append("unseen: waiting that the stages this loader shows cannot have taken")
    if not spent.step_s:
        notes.append("stages of the step: n/a, they cannot be told apart on this device; they are in other")
    return notes


def _label(part: str, world_size: int) -> str:
    if part == UNDIVIDED:  # beside stages it is what these leave
        return "unseen"
    return "backward + sync" if part == "backward" and world_size > 1 else part


def _table(head: str, shares: dict[str, int], wall_s: float, world_size: int) -> Table:
    table = Table(title=head, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for group, parts in _GROUPS.items():
        name = group
        for part in parts:
            if part in shares:
                bar = "█" * round(shares[part] / 1000 * _BAR_CHARACTERS)
                label = "" if name == part else _label(part, world_size)
                table.add_row(name, label, f"{shares[part] / 1000 * wall_s:,.1f} s", f"{shares[part] / 10:.1f}%", bar)
                name = ""
    return table


def _in_tenths_of_a_percent(shares: dict[str, float | None]) -> dict[str, int]:
    """Whole numbers that sum to 1,000, of what was seen: those nearest below their next get what rounding down left."""
    exact = {part: 1000 * share for part, share in shares.items() if share is not None}
    rounded = {part: int(tenths) for part, tenths in exact.items()}
    left = round(sum(exact.values())) - sum(rounded.values())
    for part in sorted(exact, key=lambda part: rounded[part] - exact[part])[:left]:
        rounded[part] += 1
    return rounded
