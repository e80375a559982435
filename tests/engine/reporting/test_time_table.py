"""Where the time went, as it is shown."""

import io
import re

import pytest
from rich.console import Console

from engine.profiler.time_book import TimeSpent
from engine.reporting.time_table import far_slower_rank, show_time_spent, slow_rank_line

AROUND = {"warm-up": 0.0, "evaluation": 2.0, "checkpoint": 1.0}
STEP = {"prepare": 1.0, "forward": 3.0, "backward": 5.0, "clip": 0.1, "optimizer": 1.0}


def shown(spent, world_size=1, is_terminal=False):
    out = io.StringIO()
    show_time_spent(Console(file=out, force_terminal=is_terminal, width=100, color_system=None), spent, world_size)
    return out.getvalue()


def spent(loader_s=None, step_s=None, wall_s=21.0):
    return TimeSpent(wall_s, 16.0, 3.0, 1.0, loader_s or {}, STEP if step_s is None else step_s, AROUND)


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("wall_s", [17.0, 19.0, 21.0, 23.0, 29.7])
def test_printed_shares_sum_to_100_percent(wall_s, is_terminal):
    loader_s = {"read": 1.0, "decode": 1.0, "augment": 1.0, "collate": 0.001}
    text = shown(spent(loader_s, wall_s=wall_s), is_terminal=is_terminal)
    if not is_terminal:  # groups have sums of their own, before the =
        groups = re.findall(r"^  [a-z -]+ ([\d.]+)%", text, re.MULTILINE)
        assert sum(map(float, groups)) == pytest.approx(100)
        text = re.sub(r"^  [a-z -]+ [\d.]+% =", "", text, flags=re.MULTILINE)
    assert sum(map(float, re.findall(r"([\d.]+)%", text))) == pytest.approx(100)


def test_lines_where_there_is_no_terminal():
    text = shown(spent({"read": 1.0, "decode": 2.0}))
    assert text.splitlines() == [
        "where the time went: 21.0 s",
        "  data-wait 14.3% = read 4.8%, decode 9.5%",
        "  step 48.2% = prepare 4.8%, forward 14.3%, backward 23.8%, clip 0.5%, optimizer 4.8%",
        "  around it 37.5% = warm-up 0.0%, evaluation 9.5%, checkpoint 4.7%, other 23.3%",
        "  augment, collate, hand-off, pin, copy: n/a, this loader has no such stages or does not show them",
    ]


def test_what_cannot_be_seen_is_said_and_no_0():
    text = shown(spent(step_s={}))
    assert "data-wait 14.3%\n" in text and "read" not in text and "forward" not in text
    assert "stages of loading: n/a, this loader shows none" in text
    assert "stages of the step: n/a" in text


def test_waiting_that_no_stage_shown_explains_has_a_row_of_its_own():
    few = spent({"collate": 0.3})
    assert "  data-wait 14.2% = collate 1.4%, unseen 12.8%\n" in shown(few) and "unseen: waiting that" in shown(few)
    assert re.search(r"^data-wait +collate +0\.3 s .*\n +unseen +2\.7 s", shown(few, is_terminal=True), re.MULTILINE)


def test_the_table_of_a_terminal_has_a_row_a_part_and_fits_a_screen():
    text = shown(spent({"read": 1.0, "decode": 2.0}), is_terminal=True)
    assert re.search(r"data-wait +read +1\.0 s +4\.8%", text) and re.search(r"forward +3\.0 s +14\.3% +████", text)
    assert len(text.splitlines()) < 24


def test_with_several_ranks_it_is_rank_0s_and_backward_holds_the_exchange():
    text = shown(spent(), world_size=2)
    assert "where the time went: 21.0 s, rank 0" in text and "backward + sync" in text


@pytest.mark.parametrize(
    ("own_s", "slow"),
    [
        ([5.0], None),
        ([5.0, 5.1], None),
        ([5.0, 9.0], 1),
        ([9.0, 5.0], 0),
        ([5.0, 5.2, 30.0, 5.1], 2),
        ([5.0, 6.5], None),  # not far enough
        ([0.1, 0.9], None),  # far, and next to nothing of the loop's time
    ],
)
def test_a_rank_is_named_only_where_it_needs_far_more_than_the_others(own_s, slow):
    assert far_slower_rank(own_s, train_s=20.0) == slow


def test_the_line_names_the_rank_and_both_times():
    assert slow_rank_line([5.0, 5.1], 20.0) is None
    line = slow_rank_line([5.0, 9.0, 5.2], 20.0)
    assert "rank 1 keeps the others waiting" in line and "9.0 s by itself, the others 5.1 s" in line
