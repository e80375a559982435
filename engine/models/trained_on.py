"""What a file of weights tells of the data they were trained on, beside the data they start on now."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loaders.records import ChannelStatistics

from ..channels import in_words, option_for
from ..checkpointing.finished import read_about

_CLOSE = 0.005  # of pixels of 0 to 255: the same images, packed in another way, may differ by so much


def warnings_of_data(path: str, classes: Sequence[str], channels: ChannelStatistics) -> list[str]:
    """A line each for the names of classes and for the normalisation, where a .safetensors file was of others.

    A file that tells nothing of them, or in another form than ours, gives none; nor do names where their number
    differs, since then the classifier is replaced.
    """
    about = _plain(read_about(Path(path)))
    names, normalize = about.get("classes"), about.get("normalize")
    found = []
    if isinstance(names, list) and len(names) == len(classes) and names != list(classes):
        found.append(_of_classes(path, names, classes))
    if isinstance(normalize, dict) and _is_of_three(normalize.get("mean")) and _is_of_three(normalize.get("std")):
        mean, std = normalize["mean"], normalize["std"]
        if not all(map(_is_close, (*mean, *std), (*channels.mean, *channels.std))):
            option = option_for(mean, std)
            then, now = _told(mean, std), _told(channels.mean, channels.std)
            remedy = "" if option is None else f"; {option} does as there"
            found.append(f"warning: {path} was trained on images normalised by {then}; here it is {now}{remedy}")
    return found


def _plain(told: dict[str, str]) -> dict[str, Any]:
    """What of a file's metadata is JSON, by name."""
    content = {}
    for name, text in told.items():
        try:
            content[name] = json.loads(text)
        except ValueError:
            continue  # a plain word
    return content


def _of_classes(path: str, then: Sequence[str], now: Sequence[str]) -> str:
    kind = "in another order" if sorted(map(str, then)) == sorted(now) else "of other names"
    first = next(number for number, (old, new) in enumerate(zip(then, now, strict=True)) if old != new)
    return (
        f"warning: {path} was trained on classes {kind}: number {first} was '{then[first]}' and is '{now[first]}';"
        " the classifier starts with what it learnt of those"
    )


def _is_of_three(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values)


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0, abs_tol=_CLOSE)


def _told(mean: Sequence[float], std: Sequence[float]) -> str:
    return f"mean {in_words(mean)} and deviation {in_words(std)}"
