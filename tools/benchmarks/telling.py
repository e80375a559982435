"""What a process that measures once tells whoever started it."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from engine.safeguards.memory import OutOfMemory
from loaders.errors import FeedrateError, LoaderError


class Stopped(FeedrateError):
    """A run was ended before it had been measured."""


def tell(measure: Callable[[], Mapping[str, Any]]) -> int:
    """Print what `measure` returns as the last line, as JSON, or {"unavailable": why} where it cannot be had here: what
    it needs is not installed, or is not for this device or kind of data.

    Returns the exit status: 2 where it began and failed, so that it may be tried again. Standard error then ends with
    the reason: memory that did not suffice, a sample or a GPU that failed, a stop.
    """
    try:
        told = measure()
    except (OutOfMemory, LoaderError, Stopped) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    except (ImportError, FeedrateError) as error:
        told = {"unavailable": " ".join(str(error).split())}
    print(json.dumps(told), flush=True)
    return 0
