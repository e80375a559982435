"""The page of `bench.py cold-memory`."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from engine.profiler.number_text import bytes_text, rate_text, share_text, time_text

from ..report import about, row

_TITLES = {"none": "no limits", "memory": "less memory", "disk": "slower disk", "both": "both"}


def page(measured: Mapping[str, Any]) -> str:
    """All of it, in Markdown."""
    settings = measured["settings"]
    packed = settings["set"]
    lines = [
        "# Profiles of a set larger than the memory left for it",
        "",
        *about(measured),
        f"`tools/profile.py` on {packed['num_images']:,} photos ({packed['photos']}, each {settings['repeat']} times,"
        f" as `.beton`: {bytes_text(packed['bytes'])}), timm's test_resnet at 32 px, {settings['num_workers']} workers,"
        f" one thread of torch; {settings['num_rounds']} rounds in {settings['minutes']:g} minutes. *Less memory*: a"
        " control group whose limit leaves, beside the most that the process itself was seen to hold,"
        f" {settings['room_share']:.0%} of the set's bytes for files. *Slower disk*: {settings['read_mb_per_s']} MB/s"
        " for what the group reads, which stands for a hard disk or a network volume; this machine's own disk is too"
        " fast to be waited for. *Dropped*: of the bytes of a cold turn, how much had really left memory.",
    ]
    for loader, cases in measured["loaders"].items():
        lines += ["", f"## `{loader}`", "", *_verdicts(cases), "", *_sentences(cases), "", *_stages(cases)]
    return "\n".join(lines) + "\n"


def _verdicts(cases: Mapping[str, Any]) -> Iterable[str]:
    yield row(
        "", "memory's limit", "free, as the profile saw it", "dropped", "loop", "cold loop", "cold loader", "verdict"
    )
    yield row(*["---"] * 8)
    for name, case in cases.items():
        limit = case["limits"]["memory_bytes"]
        yield row(
            _TITLES[name],
            bytes_text(limit) if limit else "none",
            bytes_text(case["memory_bytes"]),
            share_text(case["cold_share"]),
            *(f"{rate_text(statistics.median(case['rates'][key]))} img/s" for key in ("loop", "loop_cold", "cold")),
            f"**{case['verdict']['bottleneck']}**",
        )


def _sentences(cases: Mapping[str, Any]) -> Iterable[str]:
    for name, case in cases.items():
        yield f"* *{_TITLES[name]}*: {case['verdict']['sentence']}"


def _stages(cases: Mapping[str, Any]) -> Iterable[str]:
    """In which stage waiting for the disk shows: a worker's time an image of the loader alone."""
    stages = ("read", "decode", "augment")
    yield "The loader alone, a worker's time an image:"
    yield ""
    yield row("", "bytes", "img/s", *stages)
    yield row(*["---"] * 6)
    for name, case in cases.items():
        for kind, loaded in case["loading"].items():
            times = (time_text(loaded["wall_us"].get(stage)) for stage in stages)
            yield row(
                _TITLES[name], "in memory" if kind == "warm" else "dropped", rate_text(loaded["images_per_s"]), *times
            )
