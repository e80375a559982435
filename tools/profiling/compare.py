"""`profile.py compare A B`: two profiles of the same data and model, side by side.

A and B are report.json files or folders of runs. Shown are all rates with B ÷ A and its 95 % interval, the stages by
what they take of the loop's time, and the settings that differ.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.profiler.number_text import NOT_SEEN, rate_text, share_text
from engine.profiler.reports import comparison
from engine.profiler.reports.comparison import Comparison, Ratio
from loaders.errors import FeedrateError
from loaders.home_folder import given_path
from tools.benchmarks.arguments import Parser


def run(arguments: Sequence[str], console: Console) -> int:
    """Compare and print; returns 1 where B is slower than allowed, else 0. Raises FeedrateError on bad input."""
    parser = Parser(prog="profile.py compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("a", metavar="A", type=given_path, help="report.json or run folder: what was before")
    parser.add_argument("b", metavar="B", type=given_path, help="report.json or run folder: what is now")
    parser.add_argument(
        "--fail-if-slower",
        metavar="SHARE",
        help="exit with status 1 if B's loop makes fewer img/s by more than this share, such as 5%%, noise allowed for",
    )
    parser.add_argument(
        "--allow-different", action="store_true", help="compare even other data, another model or hardware"
    )
    chosen = parser.parse_args(arguments)
    share = None if chosen.fail_if_slower is None else _share(chosen.fail_if_slower)
    a, b = comparison.read_report(chosen.a), comparison.read_report(chosen.b)
    if not chosen.allow_different:
        comparison.refuse_unlike(a, b)
    compared = comparison.compare(a, b)
    if share is not None and compared.loop.high is None:
        raise FeedrateError(
            f"--fail-if-slower must tell noise from change, which takes {comparison.FEWEST_ROUNDS} rounds a report and"
            f" there are {len(a.ceilings.loop.rounds)} and {len(b.ceilings.loop.rounds)}: profile with more --rounds"
        )
    if share is not None and not chosen.allow_different:
        comparison.refuse_to_judge(a, b)
    print_comparison(console, compared)
    if share is None:
        return 0
    slower = compared.loop.slower_than(share)
    answer = "slower" if slower else "not slower"
    console.print(f"B's loop is {answer} than A's by more than {share_text(share)} beyond noise", markup=False)
    return int(slower)


def print_comparison(console: Console, compared: Comparison) -> None:
    """The sentence, then a table of rates, one of stages, and the settings that differ."""
    console.print(Text(compared.sentence, style="bold"), soft_wrap=False)
    rates = _table("img/s", "A", "B", "B ÷ A", "95% interval")
    for row in compared.rates:
        medians = [rate_text(None if rate is None else rate.median) for rate in (row.a, row.b)]
        rates.add_row(row.label, *medians, *_ratio_cells(row.ratio))
    console.print(rates)
    stages = _table("µs/img", "loop: A", "B", "B − A", "wall: A", "B", "95% of B ÷ A", "CPU: A", "B")
    for stage in compared.stages:
        difference = stage.difference_us
        change = NOT_SEEN if difference is None else f"{difference:+,.1f}".replace("-", "−")
        interval = _ratio_cells(stage.wall_ratio)[1] or NOT_SEEN
        times = [rate_text(us) for us in (*stage.loop_us, *stage.wall_us, *stage.cpu_us)]
        stages.add_row(stage.name, *times[:2], change, *times[2:4], interval, *times[4:])
    console.print(stages)
    for name, of_a, of_b in compared.settings:
        console.print(Text(f"  {name}: {of_a} → {of_b}", style="dim"), soft_wrap=False)


def _ratio_cells(ratio: Ratio | None) -> tuple[str, str]:
    if ratio is None:
        return NOT_SEEN, ""
    if ratio.low is None:
        return f"{ratio.value:.3f}", NOT_SEEN
    noise = "" if ratio.differs else " (noise)"
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} … {ratio.high:.3f}{noise}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _share(text: str) -> float:
    """5%, 5 % or 0.05."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise FeedrateError(f"--fail-if-slower {text} is no share between 0 and 1: write 5% or 0.05")
    return share
