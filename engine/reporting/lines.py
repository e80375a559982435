"""How far long work is that has no bar: a line now and then, and none where it is done at once."""

import time
from collections.abc import Callable

from loaders.api import LoadProgress
from loaders.records import ScanProgress

from .display import FIRST_LINE_S, LINE_EVERY_S

_FIRST_SCAN_LINE_S, _SCAN_LINE_EVERY_S = 2.0, 10.0

_Say = Callable[[str], None]


def scan_lines(say: _Say) -> ScanProgress:
    """What `loaders.records.open_records` may tell how far it is: at each start all images of a folder are listed, and
    those that are new are measured."""
    now_and_then = _now_and_then(say, _FIRST_SCAN_LINE_S, _SCAN_LINE_EVERY_S)

    def tell(num_done: int, num_samples: int) -> None:
        if num_samples:
            now_and_then(lambda: f"reading image sizes, once: {num_done:,} of {num_samples:,}")
        else:
            now_and_then(lambda: f"listing images: {num_done:,} so far")

    return tell


def decoding_lines(say: _Say, images: str) -> LoadProgress:
    """How far a loader is that decodes all `images` into memory."""
    now_and_then = _now_and_then(say, _FIRST_SCAN_LINE_S, _SCAN_LINE_EVERY_S)
    return lambda num_done, num_samples: now_and_then(
        lambda: f"decoding {images} into memory: {num_done:,} of {num_samples:,}"
    )


def batch_lines(say: _Say, what: str, num_batches: int) -> Callable[..., None]:
    """To be called behind each batch of `what`, with anything: so it may watch an evaluation."""
    now_and_then, num_done = _now_and_then(say, FIRST_LINE_S, LINE_EVERY_S), 0

    def tell(*_: object) -> None:
        nonlocal num_done
        num_done += 1
        now_and_then(lambda: f"{what}: batch {num_done:,} of {num_batches:,}")

    return tell


def _now_and_then(say: _Say, first_s: float, every_s: float) -> Callable[[Callable[[], str]], None]:
    """Says what it is given if it is time, counted from now on."""
    next_line_s = time.monotonic() + first_s

    def tell(line: Callable[[], str]) -> None:
        nonlocal next_line_s
        now_s = time.monotonic()
        if now_s >= next_line_s:
            next_line_s = now_s + every_s
            say(line())

    return tell
