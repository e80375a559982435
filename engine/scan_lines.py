"""How far opening a folder of images is, in lines: at each start all are listed, and what is new is measured."""

import time
from collections.abc import Callable

from loaders.records import ScanProgress

_FIRST_LINE_S = 2.0  # most sets are open by then, and need no word
_LINE_EVERY_S = 10.0


def scan_lines(say: Callable[[str], None]) -> ScanProgress:
    """What `loaders.records.open_records` may tell how far it is; `say` hears of it now and then."""
    next_line_s = time.monotonic() + _FIRST_LINE_S

    def tell(num_done: int, num_samples: int) -> None:
        nonlocal next_line_s
        now_s = time.monotonic()
        if now_s < next_line_s:
            return
        next_line_s = now_s + _LINE_EVERY_S
        if num_samples:
            say(f"reading image sizes, once: {num_done:,} of {num_samples:,}")
        else:
            say(f"listing images: {num_done:,} so far")

    return tell
