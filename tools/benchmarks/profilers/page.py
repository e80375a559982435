"""The page of `bench.py profilers`."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..report import about, row

_COLUMNS = {
    "profile": "`tools/profile.py`",
    "ours": "every training run of ours, at its end",
    "traceml": "TraceML",
    "torch": "`torch.profiler`",
}
_WORDS = {
    "right": "right",
    "side": "the right side",
    "inside": "the right side; cannot see inside the loader",
    "table": "names none; its table shows the stage",
    "not seen": "does not see it",
    "wrong": "wrong",
    "not installed": "not installed",
}


def page(measured: Mapping[str, Any]) -> str:
    """All of it, in Markdown."""
    settings, cases = measured["settings"], measured["cases"]
    lines = [
        "# Profilers beside each other on planted bottlenecks",
        "",
        *about(measured),
        "One training script: torch's DataLoader with two workers (our loader `torchvision`), timm's test_resnet at 32"
        " px, batches of 16 a rank, on a CPU. In each case one thing takes longer, by sleeping or by working; whoever"
        f" watches is told nothing of it. `torch.profiler` and TraceML watch {settings['steps']} steps, with their"
        " defaults: `profile(activities=[CPU])` and the top of `key_averages` by self CPU time; `traceml run` with"
        " `trace_step` and its wrappers for loops of one's own. `tools/profile.py` measures the same configuration with"
        f" the same delays, {settings['rounds']} rounds in {settings['minutes']:g} minutes: it runs the loader and the"
        " step, and not the script's own loop.",
        "",
        *_verdicts(cases),
        "",
        "## In their own words",
        *_words(cases),
    ]
    return "\n".join(lines) + "\n"


def _watchers(cases: Mapping[str, Any]) -> list[str]:
    return list(next(iter(cases.values()))["said"])


def _verdicts(cases: Mapping[str, Any]) -> Iterable[str]:
    watchers = _watchers(cases)
    yield row("planted", *(_COLUMNS[watcher] for watcher in watchers))
    yield row(*["---"] * (len(watchers) + 1))
    for case in cases.values():
        said = (_WORDS[case["said"][watcher]["judged"]] for watcher in watchers)
        yield row(f"{case['title']} ({case['planted']})", *said)
    counts = (Counter(case["said"][watcher]["judged"] for case in cases.values()) for watcher in watchers)
    yield row(f"**right, of {len(cases)}**", *(f"**{count['right']}**" for count in counts))


def _words(cases: Mapping[str, Any]) -> Iterable[str]:
    for case in cases.values():
        yield ""
        yield f"**{case['title']}**"
        yield ""
        for watcher, said in case["said"].items():
            yield f"* {_COLUMNS[watcher]}: {said['text'] or _WORDS[said['judged']]}"
