"""tools/bench.py profiler-overhead: a small real run, and what is made of the figures."""

import json

import pytest
from test_bench import MACHINE, command

from loaders.errors import FeedrateError
from tools.benchmarks.overhead.compare import OverheadSettings, result
from tools.benchmarks.overhead.page import page

SHOWN = {"workers": 2, "threads": 2, "epochs": 5, "rounds": 3, "device": "cpu", "in_one_go": True}
SETTINGS = OverheadSettings(("tiny",), 3, 5, 2, 2, 60.0)


def rounds(timed, bare, weights="same"):
    def side(seconds, of_weights):
        figures = {"s_per_image": seconds, "cpu_s_per_image": 2 * seconds, "num_images": 640}
        return {**figures, "weights_sha256": of_weights}

    return {
        f"tiny/{number}": {"load_1_min": 0.5, "sides": {"timed": side(a, "same"), "bare": side(b, weights)}}
        for number, (a, b) in enumerate(zip(timed, bare, strict=True))
    }


def test_the_cost_is_the_ratio_of_each_rounds_pair():
    found = result("tiny", SETTINGS, rounds([2e-4, 3.03e-4, 1.2e-4], [2e-4, 3e-4, 1e-4]))
    assert found["ratios"]["s_per_image"] == pytest.approx({"median": 1.01, "lowest": 1, "highest": 1.2, "n": 3})
    assert found["sides"]["bare"]["s_per_image"]["rounds"] == [2e-4, 3e-4, 1e-4]
    settings = {**SHOWN, "quick": False}
    text = page({"date": "today", "machine": MACHINE, "settings": settings, "cases": {"tiny": found}})
    assert "| with the clocks | 200.0 µs (120.0 … 303.0) | 400.0 µs (240.0 … 606.0) |" in text
    assert "| with ÷ without | 1.0100 × (1.0000 … 1.2000) |" in text
    assert "The clocks cost +1.00% of the time" in text and "n = 3" in text and "mean little" not in text


@pytest.mark.parametrize(("cost", "words"), [(1.005, "within the 1%"), (1.02, "above the 1%")])
def test_the_page_says_whether_it_is_what_it_may_cost(cost, words):
    found = result("tiny", SETTINGS, rounds([cost * 1e-4] * 3, [1e-4] * 3))
    settings = {**SHOWN, "quick": True}
    text = page({"date": "today", "machine": MACHINE, "settings": settings, "cases": {"tiny": found}})
    assert words in text and "these figures mean little" in text


def test_timing_that_changes_the_weights_is_refused():
    with pytest.raises(FeedrateError, match="must not change any bit"):
        result("tiny", SETTINGS, rounds([1e-4] * 3, [1e-4] * 3, weights="others"))


def test_a_quick_run_trains_both_sides_to_the_same_bits_and_writes_a_report(tmp_path, capsys):
    words = ["profiler-overhead", "--quick", "--cases", "tiny", "--workers", "1", "--threads", "1"]
    places = ["--work", str(tmp_path / "work"), "--report", str(tmp_path)]
    assert command().main([*words, *places]) == 0, capsys.readouterr().err
    (written,) = tmp_path.glob("profiler_overhead_*.json")
    measured = json.loads(written.read_text())
    case = measured["cases"]["tiny"]
    for side in ("timed", "bare"):
        assert case["sides"][side]["s_per_image"]["median"] > 0 < case["sides"][side]["cpu_s_per_image"]["median"]
    assert case["num_images"] == 3 * 32 and case["ratios"]["s_per_image"]["n"] == 1
    assert written.with_suffix(".md").read_text() in capsys.readouterr().out
    assert not (tmp_path / "work").exists()
