"""What `bench.py ceilings` and `bench.py end-to-end` measured, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..report import about, rate_text, row, spread_text


def ceilings_page(measured: Mapping[str, Any]) -> str:
    """The page of `bench.py ceilings`."""
    settings = measured["settings"]
    lines = [
        "# The training step alone",
        "",
        *about(measured),
        f"{where(measured)}. One batch of {settings['batch_size']} images of {settings['size_px']} px that stays"
        f" on the device; SGD with momentum and label smoothing; {_how(settings)}. *× its AMP*: times as many images"
        " a second as torchvision's loop with --amp.",
    ]
    for model, found in measured["models"].items():
        lines += ["", f"## {model}", "", row("variant", "img/s", "× its AMP"), row(*["---"] * 3)]
        lines += [
            row(one["title"], rate_text(one["s_per_image"]), _times(one["times_reference"]))
            for one in found["variants"].values()
        ]
        lines += _skipped(found["skipped"])
    lines += ["", *(f"* `{name}`: {title}." for name, title in measured["sides"].items())]
    return "\n".join(lines) + "\n"


def end_to_end_page(measured: Mapping[str, Any]) -> str:
    """The page of `bench.py end-to-end`."""
    settings = measured["settings"]
    compiled = ", compiled" if settings["compiled"] else ""
    generated = " (generated, not photos)" if settings["is_generated"] else ""
    lines = [
        f"# {settings['model']} end to end",
        "",
        *about(measured),
        f"{where(measured)}. {settings['precision']}, channels-last{compiled}; batches of {settings['batch_size']} at"
        f" {settings['size_px']} px, {settings['workers']} workers; {settings['images']}{generated}"
        f" ({settings['num_samples']:,} images an epoch, in the page cache; starting an epoch is within);"
        f" {_how(settings)}. *Share*: of the step alone, on one batch that stays.",
        "",
        f"The step alone: {rate_text(measured['ceiling'])} img/s.",
    ]
    for found in measured["forms"].values():
        lines += ["", f"## {found['title']}", "", row("loader", "loader alone, img/s", "training, img/s", "share")]
        lines += [row(*["---"] * 4)]
        for loader, one in found["loaders"].items():
            alone = rate_text(one["alone"]) if one["alone"] else "not measured here"
            lines.append(row(f"`{loader}`", alone, rate_text(one["together"]), share_text(one["share"])))
        lines += _skipped(found["skipped"])
        slower = {loader: why for loader, one in found["loaders"].items() if (why := one["slower_because"])}
        lines += ["", *(f"`{loader}` was {why}  " for loader, why in slower.items())] if slower else []
    return "\n".join(lines) + "\n"


def share_text(share: Mapping[str, float]) -> str:
    """ "93.1 % (92.8 … 93.3)" """
    median, lowest, highest = (f"{100 * share[key]:.1f}" for key in ("median", "lowest", "highest"))
    return f"{median} %" + (f" ({lowest} … {highest})" if share["n"] > 1 else "")


def where(measured: Mapping[str, Any]) -> str:
    """torch's version, and the device."""
    machine = measured["machine"]
    device = "the CPU" if measured["settings"]["device"] == "cpu" else ", ".join(machine["gpus"])
    return f"torch {machine['versions']['torch']}, on {device}"


def _how(settings: Mapping[str, Any]) -> str:
    return (
        f"each run a process of its own with {settings['windows']} windows of at least {settings['seconds']:g} s, one"
        f" after the other, in the middle of training; the runs took turns; rounds: {settings['rounds']} (median over"
        " windows, lowest … highest; ratios are of rounds)"
        + (f"; **unfinished: {missing} runs are missing**" if (missing := settings.get("missing_runs")) else "")
    )


def _times(times: Mapping[str, float] | None) -> str:
    return spread_text(times, "×") if times else "not measured"


def _skipped(skipped: Mapping[str, str]) -> Iterator[str]:
    if skipped:
        yield ""
    yield from (f"`{name}` was skipped: {why}  " for name, why in skipped.items())
