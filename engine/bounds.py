"""Checks of settings, each one sentence."""

import math

from loaders.errors import FeedrateError


def at_least(least: float, **values: float) -> None:
    """Refuse a setting that is infinite, or below `least`; NaN is below everything."""
    for name, value in values.items():
        _refuse_infinite(name, value)
        if not value >= least:
            raise FeedrateError(f"{name} is {value}: it must be {least} or more")


def between(least: float, most: float, **values: float) -> None:
    """Refuse a setting outside `least` … `most`."""
    for name, value in values.items():
        if not least <= value <= most:
            raise FeedrateError(f"{name} is {value}: it must lie between {least} and {most}")


def above_0(**values: float) -> None:
    """Refuse a setting that is infinite, or 0 or below."""
    for name, value in values.items():
        _refuse_infinite(name, value)
        if not value > 0:
            raise FeedrateError(f"{name} is {value}: it must be above 0")


def _refuse_infinite(name: str, value: float) -> None:
    if value == math.inf:
        raise FeedrateError(f"{name} is inf: it must be a finite number")
