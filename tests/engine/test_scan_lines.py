"""Opening a large folder of images says how far it is; opening a small one says nothing."""

import pytest

from engine import scan_lines


class _Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(scan_lines, "time", clock)
    return clock


def test_what_takes_long_is_told_now_and_then(clock):
    said = []
    tell = scan_lines.scan_lines(said.append)
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
    tell = scan_lines.scan_lines(said.append)
    tell(7, 0)
    tell(7, 7)
    assert not said
