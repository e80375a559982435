"""What `bench.py train` measured, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..report import about, rate_text, row, spread_text
from .sides import FEEDS


def page(measured: Mapping[str, Any], picture: str) -> str:
    """The page, with `picture` in it."""
    settings = measured["settings"]
    lines = [
        "# Training beside others",
        "",
        *about(measured),
        f"torch {measured['machine']['versions']['torch']}, {_device(measured)}. Every side trains torchvision's"
        f" {settings['model']} ({next(iter(measured['cases'].values()))['num_parameters']:,} parameters) by SGD with"
        f" momentum and label smoothing, {settings['layout']}; threads of torch: {settings['threads']}, workers where"
        f" images are loaded: {settings['workers']}; RandomResizedCrop and flip. Images: {settings['images']}, as files"
        " for the others, the same bytes packed for ours, all in the page cache. Each run is a process of its own,"
        " first with a batch that stays, then from images; the sides took turns; rounds:"
        f" {settings['rounds']} (median, lowest … highest). Timed is a window of at least {settings['seconds']:g} s in"
        " the middle of training, between the ends of two steps: all that a loop does is within. *Ours ÷ it* above 1:"
        " ours trains on more images a second.",
        "",
        f"![images a second]({picture})",
    ]
    for feed, title in FEEDS.items():
        lines += ["", f"## {title}", "", *_table(measured, feed)]
    lines += ["", "## Not slower?", "", *(f"* {sentence}" for sentence in verdicts(measured)), "", *_notes(measured)]
    return "\n".join(lines).rstrip() + "\n"


def verdicts(measured: Mapping[str, Any]) -> Iterator[str]:
    """Of each feed and peer, in one sentence: whether ours is slower anywhere by more than the rounds' spread."""
    for feed, title in FEEDS.items():
        peers = {side for case in measured["cases"].values() for side in case["feeds"][feed]["ratios"]}
        for peer in sorted(peers):
            found = {
                name: case["feeds"][feed]["ratios"][peer]
                for name, case in measured["cases"].items()
                if peer in case["feeds"][feed]["ratios"]
            }
            medians = [spread["median"] for spread in found.values()]
            slower = [name for name, spread in found.items() if spread["highest"] < 1]
            below = [name for name, spread in found.items() if spread["median"] < 1 and name not in slower]
            lowest, highest = f"{min(medians):.2f}", f"{max(medians):.2f}"
            span = lowest if lowest == highest else f"{lowest} to {highest}"
            told = f"{title}, {peer}: ours trains {span} times as fast"
            told += f"; below 1 within the spread for {', '.join(below)}" if below else ""
            yield told + (f"; **slower in every round for {', '.join(slower)}**." if slower else "; nowhere slower.")


def _table(measured: Mapping[str, Any], feed: str) -> Iterator[str]:
    yield row("case", "side", "img/s", "ours ÷ it", "load before a round")
    yield row(*["---"] * 5)
    for case in measured["cases"].values():
        for side, spread in case["feeds"][feed]["sides"].items():
            found = case["feeds"][feed]["ratios"].get(side)
            yield row(
                case["title"],
                side,
                rate_text(spread),
                spread_text(found, "×") if found else "",
                f"{max(case['load_1_min']):.2f}",
            )


def _device(measured: Mapping[str, Any]) -> str:
    if measured["settings"]["device"] == "cpu":
        return "on the CPU"
    return f"on {', '.join(measured['machine']['gpus'])}"


def _notes(measured: Mapping[str, Any]) -> Iterator[str]:
    yield "The sides:"
    yield ""
    for name, side in measured["sides"].items():
        yield f"* `{name}` {side['version']}: {side['title']}."
    yield ""
    yield (
        "Not all do the same beside the step. Ours takes uint8 and normalises within it, seeds it, counts right"
        " answers, hashes the ids, watches for a loss that is no number, and can be stopped and resumed; the others'"
        " resident batch is normalised already. The others read the loss on the host in every step, and torchvision's"
        " two accuracies too."
    )
    yield ""
    yield "Peak memory of the process, without the others' worker processes (ours has threads):"
    yield ""
    for case in measured["cases"].values():
        shown = (f"{side} {peak / 1e6:,.0f} MB" for side, peak in case["peak_rss_bytes"].items())
        yield f"* {case['title']}: {', '.join(shown)}"
    skipped = {(side, why) for case in measured["cases"].values() for side, why in case["skipped"].items()}
    yield from ("", *(f"`{side}` was skipped: {why}  " for side, why in sorted(skipped)))
