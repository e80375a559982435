import re
from dataclasses import replace

import pytest
from rich.console import Console
from shown_profiles import bare, full, with_subject

from engine.profiler.record import STAGES, Advice, StageRecord
from engine.profiler.reports.terminal import SCREEN_LINES, print_profile


def shown(profile, width=80):
    console = Console(width=width, highlight=False, soft_wrap=True, force_terminal=True, color_system=None)
    with console.capture() as captured:
        print_profile(console, profile)
    return captured.get().splitlines()


def row(lines, first):
    """The cells of the one line that begins with `first`."""
    found = [line for line in lines if line.startswith(first)]
    assert len(found) == 1, found
    return found[0].removeprefix(first).split()


@pytest.mark.parametrize("profile", [full(), bare()], ids=["full", "bare"])
@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_one_screen_with_the_verdict_at_the_top(profile, width):
    lines = shown(profile, width)
    assert len(lines) < SCREEN_LINES
    assert max(map(len, lines)) <= width
    assert " ".join(line.strip() for line in lines).startswith(profile.verdict.sentence)


def test_in_a_pipe_no_sentence_is_wrapped_or_cut():
    console = Console(width=80, highlight=False, soft_wrap=True, force_terminal=False)
    with console.capture() as captured:
        print_profile(console, full())
    lines = captured.get().splitlines()
    assert full().verdict.sentence in lines and len(full().verdict.sentence) > 80
    (small,) = (line for line in lines if line.startswith("  small: "))
    assert len(small) > 80 and small.endswith("other 1.0%")


def test_the_verdict_is_bold_and_stands_first():
    console = Console(width=80, highlight=False, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        print_profile(console, full())
    assert captured.get().startswith("\x1b[1mDecode-bound")


def test_the_numbers_stand_beside_their_names():
    lines = shown(full(), 120)
    assert row(lines, "the loop ")[:4] == ["5,050", "4,949", "…", "5,151"]
    assert row(lines, "cold loader")[0] == "1,480"
    assert row(lines, "decode ◀") == ["worker", "1,043", "1,022", "905", "1,630", "2,440", "15,340", "43%", "█" * 13]
    assert row(lines, "sync")[:6] == ["device", "9.20", "n/a", "n/a", "n/a", "n/a"]
    assert row(lines, "12 workers")[:6] == ["5,370", "5,102", "…", "5,638", "5,480", "−2.0%"]


def test_bytes_copied_that_were_not_seen_have_their_reason_beside_them():
    stages = tuple(
        replace(one, note="rectangles are copied") if one.name == "copy" else one for one in full().shown_rank.stages
    )
    told = replace(full().shown_rank, stages=stages, resources=replace(full().shown_rank.resources, copy_mb_per_s=None))
    text = " ".join(line.strip() for line in shown(replace(full(), ranks=(told,))))
    assert "copied to the device n/a (rectangles are copied)" in text
    assert "copied to the device 2,390 MB/s" in " ".join(line.strip() for line in shown(full()))


def test_bars_are_as_long_as_what_they_stand_for():
    lines = shown(full(), 120)
    longest, other = (len(re.findall("█", line)) for line in lines if line.startswith(("step alone", "loader (8")))
    assert other == pytest.approx(longest * 5160 / 14480, abs=1)


def test_what_cannot_be_seen_says_so_with_its_reason_and_is_never_0():
    lines = shown(bare())
    text = " ".join(line.strip() for line in lines)
    assert "decode, augment: inside DALI's pipeline, which cannot be looked into" in text
    assert "step fed by the host: a CPU is not fed" in text
    assert "cold loader, cold loop: files were not dropped from memory" in text
    assert "ready n/a of 3" in text and "DALI does not tell how many batches are ready" in text
    assert "storage n/a, n/a reads/s" in text and "GPU" not in text
    assert row(lines, "other") == ["loop", "250", "n/a", "n/a", "n/a", "n/a", "n/a", "2.0%"]
    assert not re.search(r"(?<![\d.,])0(\.0+)?%?(?![\d.,])", text.replace("0.0 s", ""))


@pytest.mark.parametrize(
    "note", ["a virtual machine, whose host may hold files", "not predicted: " + "it is so; " * 200]
)
@pytest.mark.parametrize("profile", [full(), bare()], ids=["full", "bare"])
def test_notes_take_no_reason_away_and_long_ones_leave_their_end_to_the_page(profile, note):
    missing = replace(profile.ceilings, cold=None, loop_cold=None, notes=(note, "the last note"))
    lines = shown(replace(profile, ceilings=missing))
    text = " ".join(line.strip() for line in lines)
    assert "cold loader, cold loop: files were not dropped from memory" in text
    assert ("step fed by the host: a CPU is not fed" in text) is (profile.subject.device == "cpu")
    assert note[:40].strip() in text and "the last note" in text
    assert ("… (all of it in report.html)" in text) is (len(note) > 1000)
    assert len(lines) < SCREEN_LINES


def test_small_stages_share_a_line_before_the_screen_overflows_and_the_limiting_one_never_does():
    stages = tuple(
        StageRecord(name, "loop", 1.0, 1.0, 1.0, 1.0, 1.0, 1e6, 0.001 if name == "clip" else 0.0768) for name in STAGES
    )
    profile = full()
    profile = replace(
        profile,
        ranks=(replace(profile.ranks[0], stages=stages),),
        verdict=replace(profile.verdict, bottleneck="clip", advice=(Advice("so " * 60, 2.0),) * 3),
    )
    lines = shown(profile)
    assert row(lines, "clip ◀")
    assert len(lines) < SCREEN_LINES


def test_predictions_that_the_screen_has_no_room_for_are_counted():
    narrow = shown(full())
    told = [line for line in narrow if "more in report.html" in line]
    rows = [line for line in narrow if re.match(r"(packed|loader dali|\d+ workers|batch of|storage twice)", line)]
    assert len(rows) >= 2 and told == [f"  and {len(full().what_if) - len(rows)} more in report.html"]


def test_a_taller_terminal_shows_all_predictions():
    console = Console(width=120, height=70, highlight=False, force_terminal=True, color_system=None)
    with console.capture() as captured:
        print_profile(console, full())
    assert "more in report.html" not in captured.get() and "storage twice as fast" in captured.get()


def test_names_from_outside_cannot_steer_the_terminal():
    nasty = with_subject(full(), path="data/\x1b[2Jgone\r\n[bold]set[/bold]")
    nasty = replace(nasty, ceilings=replace(nasty.ceilings, notes=("a \x1b]0;title\x07 note",)))
    text = "\n".join(shown(nasty))
    assert "\x1b" not in text and "\r" not in text and "\x07" not in text
    assert "[bold]set[/bold]" in text.replace("\n", "")


def test_the_slow_rank_is_the_one_that_is_shown():
    profile = full()
    profile = replace(profile, verdict=replace(profile.verdict, slow_rank=1))
    assert any(line.startswith("Rank 1, µs/img") for line in shown(profile))
