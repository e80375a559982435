"""tools/bench.py what-if: how errors are reckoned, what the page says, and a small real run."""

import json

import pytest
from commands import python
from test_bench import MACHINE, command

from loaders.errors import FeedrateError
from tools.benchmarks.what_if.compare import errors_of, judged, sentence, settings_of
from tools.benchmarks.what_if.page import draw, page


def change(predicted, measured, kind="workers", half=0.05, now=100.0):
    low, high = predicted * (1 - half), predicted * (1 + half)
    return {"change": f"{kind} x", "predicted": predicted, "low": low, "high": high, "now": now} | {
        "kind": kind,
        "measured": measured,
    }


def base(*changes, rounds=(50.0, 60.0, 40.0)):
    found = {"step": [200.0], "loader": {"2": [300.0]}, "loop": [100.0], "cpus_used": 1.5}
    return {"load_1_min": 0.5, "profile": found, "base": list(rounds), "changes": list(changes)}


def test_an_error_is_of_the_ratio_to_the_base_so_that_drift_cancels():
    # as profiled 100 and then 110 predicted; meanwhile the machine has become half as fast, and the change brings 1/5
    (found,) = judged(base(change(110.0, [60.0, 72.0, 48.0])))
    assert found["measured_ratio"] == pytest.approx(1.2)
    assert found["error"] == pytest.approx(1.1 / 1.2 - 1) and found["plain_error"] == pytest.approx(110 / 60 - 1)
    assert not found["is_within"]
    assert judged(base(change(110.0, [60.0, 72.0, 48.0], half=0.1)))[0]["is_within"]


def test_the_distribution_is_of_sizes():
    rows = [{"error": error, "is_within": error > 0} for error in (-0.04, 0.02, 0.01, -0.1)]
    found = errors_of(rows)
    assert found["median"] == pytest.approx(0.03) and found["largest"] == 0.1 and found["within"] == 0.5
    assert sentence(found).startswith("4 predictions were off by 3.0% in the median")


@pytest.mark.parametrize(("off", "words"), [(1.02, ": kept."), (1.2, ": not kept.")])
def test_the_page_says_whether_it_is_as_exact_as_it_must_be(off, words, tmp_path):
    rows = [
        change(100.0 * off, [50.0, 60.0, 40.0], kind, half=0.1) for kind in ("workers", "format") for _ in range(12)
    ]
    done = base(*rows)
    measured = {
        "date": "today",
        "machine": MACHINE,
        "settings": {"minutes": 1.0, "rounds": 3, "quick": False, "in_one_go": True},
        "bases": {"x": {"text": "the base", **done, "changes": judged(done)}},
    }
    text = page(measured, "x.png")
    assert words in text and "24 predictions" in text and "| loader | 0 | n/a" in text
    assert f"| workers | 12 | {off - 1:.1%} |" in text and "mean little" not in text
    assert "nothing changes would have been off by 0.0% in the median" in text
    draw(tmp_path / "x.png", measured)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_images_that_are_not_there_are_one_sentence(tmp_path):
    chosen = command().parse(["what-if", "--data", str(tmp_path)])
    with pytest.raises(FeedrateError, match="name the folder that holds it by --data"):
        settings_of(chosen)
    with pytest.raises(FeedrateError, match="'0' is not a number of minutes above 0"):
        command().parse(["what-if", "--minutes", "0"])


def test_a_quick_run_predicts_and_measures_every_change_of_a_base(tmp_path, image_folder):
    images = tmp_path / "imagenette-160-packed"
    packed = python("tools/convert.py", "folder", "--source", str(image_folder), "--out", str(images))
    assert packed.returncode == 0, packed.stderr
    words = ["what-if", "--quick", "--bases", "tiny", "--data", str(tmp_path)]
    result = python("tools/bench.py", *words, "--work", str(tmp_path / "work"), "--report", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (written,) = tmp_path.glob("what_if_*.json")
    found = json.loads(written.read_text())["bases"]["tiny"]
    assert {row["kind"] for row in found["changes"]} == {"workers", "batch", "format", "loader"}
    for row in found["changes"]:
        assert row["low"] <= row["predicted"] <= row["high"] and len(row["measured"]) == 2
    assert written.with_suffix(".md").read_text() in result.stdout and written.with_suffix(".png").exists()
    assert not (tmp_path / "work").exists()
