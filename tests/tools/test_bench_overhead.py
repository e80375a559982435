"""tools/bench.py profiler-overhead: a small real run, and what is made of the figures."""

import json

import pytest
from test_bench import MACHINE, command

from loaders.errors import FeedrateError
from tools.benchmarks.overhead.compare import Cost, OverheadSettings, counted, result
from tools.benchmarks.overhead.job import Job
from tools.benchmarks.overhead.page import judged, page

SETTINGS = OverheadSettings(("tiny",), 2, 3, 2, 2, 60.0)
COSTS = {"span_us": 1.0, "batch_us": 2.0, "line_us": 20.0, "epoch_us": 6400.0, "loader_us": [0.5, 0.6, 0.4]}


def rounds(timed, bare, weights="same"):
    """Two runs of three pairs each."""

    def side(seconds):
        return [{"s_per_image": one, "cpu_s_per_image": 2 * one} for one in seconds]

    found = {
        f"tiny/{number}": {
            "load_1_min": 0.5,
            "sides": {"timed": side(timed[3 * number :][:3]), "bare": side(bare[3 * number :][:3])},
            "weights_sha256": weights if number else "same",
        }
        for number in range(2)
    }
    return {"tiny/costs": COSTS, **found}


def paged(case, quick=False):
    settings = {"workers": 2, "threads": 2, "pairs": 3, "quick": quick, "rounds": 2, "in_one_go": True}
    settings["device"] = "cpu"
    return page({"date": "today", "machine": MACHINE, "settings": settings, "cases": {"tiny": case}})


def test_the_cost_is_the_median_ratio_of_epochs_next_to_each_other():
    found = result("tiny", SETTINGS, rounds([2e-4, 3.03e-4, 1.2e-4, 2.02e-4, 1, 2], [2e-4, 3e-4, 1e-4, 2e-4, 1, 2]))
    cost = found["costs"]["s_per_image"]
    assert cost["median"] == pytest.approx(1.005) and cost["n"] == 6
    assert 1 <= cost["low"] <= cost["median"] <= cost["high"] <= 1.2
    assert found["sides"]["bare"]["s_per_image"]["turns"] == [2e-4, 3e-4, 1e-4, 2e-4, 1, 2]
    text = paged(found)
    assert "| with ÷ without | +0.50% (" in text and "n = 6" in text and "mean little" not in text
    assert "these figures mean little" in paged(found, quick=True)


def test_counted_is_what_each_thing_costs_times_how_often_it_is_done():
    found = counted(COSTS, 32, 1e-4, 2048)
    own_us = 5 * 1.0 + 2.0 + 20.0 / 20
    assert found["own_us_per_step"] == own_us and found["epoch_us_per_step"] == 6400 / 64
    assert found["step_us"] == pytest.approx(3200)
    assert found["share"]["median"] == pytest.approx((own_us + 32 * 0.5) / 3200)
    assert found["share"]["high"] == pytest.approx((own_us + 32 * 0.6) / 3200)
    text = paged(result("tiny", SETTINGS, rounds([1e-4] * 6, [1e-4] * 6)))
    assert "together 8.00 µs a step" in text and "0.50 µs an image" in text
    assert "1% of a step of 2.40 ms of processor time" in text and "alone, 1% of a step of 800 µs" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.001, 1.009, "at most 1% is shown"),
        (1.011, 1.02, "more than 1% is shown"),
        (0.99, 1.02, "whether it is within 1% is not shown"),
    ],
)
def test_the_page_says_only_what_the_interval_shows(low, high, words):
    assert judged({"median": (low + high) / 2, "low": low, "high": high, "n": 40}) == words
    assert "nothing can be said" in judged({"median": 1.0, "low": low, "high": high, "n": 3})


def test_an_interval_of_many_alike_pairs_is_narrow_and_of_few_unlike_ones_wide():
    alike, unlike = Cost.of_values([1.004, 1.006] * 40), Cost.of_values([0.9, 1.0, 1.1])
    assert alike.high - alike.low < 0.003 and (unlike.low, unlike.high) == (0.9, 1.1)


def test_turns_change_their_order_from_pair_to_pair_and_from_run_to_run():
    def sides(first):
        job = Job(False, first, "", "", 16, 32, 3, 2, 2)
        return "".join("t" if job.is_timed(epoch) else "b" for epoch in range(8))

    assert (sides(True), sides(False)) == ("tbbttbbt", "bttbbttb")


def test_timing_that_changes_the_weights_is_refused():
    with pytest.raises(FeedrateError, match="must not change any bit"):
        result("tiny", SETTINGS, rounds([1e-4] * 6, [1e-4] * 6, weights="others"))


def test_a_quick_run_trains_both_sides_to_the_same_bits_and_writes_a_report(tmp_path, capsys):
    words = ["profiler-overhead", "--quick", "--cases", "tiny", "--workers", "1", "--threads", "1"]
    places = ["--work", str(tmp_path / "work"), "--report", str(tmp_path)]
    assert command().main([*words, *places]) == 0, capsys.readouterr().err
    (written,) = tmp_path.glob("profiler_overhead_*.json")
    measured = json.loads(written.read_text())
    case = measured["cases"]["tiny"]
    for side in ("timed", "bare"):
        assert case["sides"][side]["s_per_image"]["n"] == 2
        assert case["sides"][side]["s_per_image"]["median"] > 0 < case["sides"][side]["cpu_s_per_image"]["median"]
    found = case["counted"]
    assert 0 < found["span_us"] < 100 and 0 < found["line_us"] < 1000 < found["epoch_us"]
    assert written.with_suffix(".md").read_text() in capsys.readouterr().out
    assert not (tmp_path / "work").exists()
