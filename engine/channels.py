"""What images are normalised by: the setting, and what it comes to over a set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics, Records

from .augment import IMAGENET_CHANNELS

SixNumbers = tuple[float, float, float, float, float, float]
NormalizeBy = Literal["auto", "imagenet", "set", "half"] | SixNumbers

_MOST = 255
_HALF = ChannelStatistics(
    (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "--data.normalize half (127.5 each: 0.5, × 255)"
)


def refuse_bad_numbers(normalize: NormalizeBy) -> None:
    """Raise FeedrateError for six numbers that are no means and deviations of values of 0 to 255."""
    if isinstance(normalize, str):
        return
    mean, std = normalize[:3], normalize[3:]
    if not all(0 <= value <= _MOST for value in mean) or not all(0 < value <= _MOST for value in std):
        raise FeedrateError(
            f"normalize is {in_words(normalize)}: it must be the means of red, green and blue, 0 to {_MOST}, and then"
            f" their deviations, above 0 and {_MOST} at most"
        )
    if max(normalize) <= 1:
        raise FeedrateError(
            f"normalize is {in_words(normalize)}, as of values of 0 to 1: it must be of 0 to {_MOST},"
            f" {in_words([_MOST * value for value in normalize])}"
        )


def channels_of(records: Records, normalize: NormalizeBy = "auto", path: str = "the set") -> ChannelStatistics:
    """What to normalise by. auto: the set's own statistics where its format carries them, else ImageNet's.

    A channel that is the same everywhere has a deviation of 0, which nothing can be divided by: there 1 stands for it.
    Raises FeedrateError, which calls the set `path`, where its own are asked for and it carries none.
    """
    if normalize == "imagenet":
        return IMAGENET_CHANNELS
    if normalize == "half":
        return _HALF
    if not isinstance(normalize, str):
        return ChannelStatistics(normalize[:3], normalize[3:], f"--data.normalize {in_words(normalize)}")
    channels = records.channels
    if channels is None and normalize == "set":
        raise FeedrateError(
            f"--data.normalize is set and {path} holds no mean and deviation of its own: pack it with tools/convert.py,"
            " which finds them, or give --data.normalize imagenet"
        )
    channels = channels or IMAGENET_CHANNELS
    red, green, blue = channels.std
    return replace(channels, std=(red or 1.0, green or 1.0, blue or 1.0))


def told_of(channels: ChannelStatistics, records: Records) -> list[str]:
    """A line of what the images of `records` are normalised by, and one for each channel that then is 0 everywhere."""
    lines = [f"normalised by the mean and deviation of {channels.source}"]
    if (own := records.channels) is not None:
        for number, name in enumerate(("red", "green", "blue")):
            if own.std[number] == 0 and own.mean[number] == channels.mean[number]:
                lines.append(f"the {name} channel is the same everywhere: its pixels are normalised to 0")
    return lines


def option_for(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """The option that normalises by these three and three, to the bit of float32; None for what is not of 0 to 255."""
    for name, channels in (("imagenet", IMAGENET_CHANNELS), ("half", _HALF)):
        if (tuple(mean), tuple(std)) == (channels.mean, channels.std):
            return f"--data.normalize {name}"
    numbers = cast(SixNumbers, (*mean, *std))
    try:
        refuse_bad_numbers(numbers)
    except FeedrateError:
        return None
    return f"--data.normalize {in_words(numbers)}"


def in_words(values: Sequence[float]) -> str:
    """Means or deviations, or both, as `--data.normalize` takes them, to the bit of float32."""
    return " ".join(f"{value:.9g}" for value in values)
