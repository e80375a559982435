"""What takes long and has no bar says how far it is; what is done at once says nothing."""

import pytest

from engine.reporting import lines
from engine.reporting.display import FIRST_LINE_S, LINE_EVERY_S


class _Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(lines, "time", clock)
    return clock


def test_a_long_scan_is_told_now_and_then(clock):
    said = []
    tell = lines.scan_lines(said.append)
    for second in range(30):
        clock.now = 100.0 + second
        tell(1_000 * second, 0 if second < 20 else 40_000)
    assert said == [
        "listing images: 2,000 so far",
        "listing images: 12,000 so far",
        "reading image sizes, once: 22,000 of 40,000",
    ]


def test_what_is_done_at_once_is_not_worth_a_line(clock):
    said = []
    tell = lines.scan_lines(said.append)
    tell(7, 0)
    tell(7, 7)
    assert not said


def test_batches_are_told_now_and_then_and_whatever_is_shown_of_them_is_ignored(clock):
    said = []
    tell = lines.batch_lines(said.append, "evaluating ema", 5_000)
    num_seconds = int(FIRST_LINE_S + LINE_EVERY_S) + 1
    for second in range(num_seconds):
        clock.now = 100.0 + second
        tell("batch", "logits")
    assert said == [
        f"evaluating ema: batch {FIRST_LINE_S + 1:.0f} of 5,000",
        f"evaluating ema: batch {num_seconds} of 5,000",
    ]
