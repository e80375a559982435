"""Numbers of a profile as people read them; None is "n/a", never 0."""

from .record import Rate

NOT_SEEN = "n/a"


def plain(text: str) -> str:
    """`text` without anything a terminal or a page would obey instead of showing: names come from outside."""
    return "".join(character if character.isprintable() else "�" for character in text)


def rate_text(images_per_s: float | None) -> str:
    """Images a second, or any other number, to about three digits and whole above 100."""
    if images_per_s is None:
        return NOT_SEEN
    if 0 < images_per_s < 0.005:
        return "<0.01"
    digits = 0 if images_per_s == 0 or abs(images_per_s) >= 99.95 else 1 if abs(images_per_s) >= 9.995 else 2
    return f"{images_per_s:,.{digits}f}"


def interval_text(low: float, high: float) -> str:
    """Both ends of an interval of such numbers."""
    return f"{rate_text(low)} … {rate_text(high)}"


def rate_interval_text(rate: Rate | None) -> str:
    """The median's 95 % interval; a single round has none."""
    if rate is None or len(rate.rounds) < 2:
        return NOT_SEEN
    return interval_text(*rate.interval)


def time_text(microseconds: float | None) -> str:
    """In the unit that leaves one to four digits before the point."""
    if microseconds is None:
        return NOT_SEEN
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if abs(microseconds) >= size:
            return f"{_three_digits(microseconds / size)} {unit}"
    return f"{_three_digits(microseconds)} µs"


def seconds_text(seconds: float | None) -> str:
    """Like `time_text`, of seconds."""
    return NOT_SEEN if seconds is None else time_text(seconds * 1e6)


def minutes_text(minutes: float) -> str:
    """Of an epoch: seconds, minutes or hours."""
    if minutes < 2:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def share_text(share: float | None) -> str:
    """Per cent; what is small but not nothing does not become 0, nor what is nearly all 100."""
    if share is None:
        return NOT_SEEN
    if 0 < abs(share) < 0.0995:
        return f"{share:.1%}" if abs(share) >= 0.0005 else "<0.1%"
    if 0.995 <= share < 1:
        return f"{share:.1%}" if share < 0.9995 else ">99.9%"
    return f"{share:.0%}"


def signed_share_text(share: float | None) -> str:
    """A difference in per cent, with its sign."""
    return NOT_SEEN if share is None else f"{share:+.1%}".replace("-", "−")


def bytes_text(count: float | None) -> str:
    """In decimal units, as storage is sold."""
    if count is None:
        return NOT_SEEN
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:,.{digits}f}"
