"""Checks of settings, each one sentence."""

from loaders.errors import FeedrateError


def at_least(least: float, **values: float) -> None:
    """Refuse a setting below `least`; NaN is below everything."""
    for name, value in values.items():
        if not value >= least:
            raise FeedrateError(f"{name} is {value}: it must be {least} or more")


def between(least: float, most: float, **values: float) -> None:
    """Refuse a setting outside `least` … `most`."""
    for name, value in values.items():
        if not least <= value <= most:
            raise FeedrateError(f"{name} is {value}: it must lie between {least} and {most}")


def above_0(**values: float) -> None:
    """Refuse a setting of 0 or below."""
    for name, value in values.items():
        if not value > 0:
            raise FeedrateError(f"{name} is {value}: it must be above 0")
