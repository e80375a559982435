"""tools/bench.py: small real runs, and what is made of measurements."""

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import time

import psutil
import pytest
from commands import REPOSITORY, TIMEOUT_S
from settling import settled

from loaders.errors import FeedrateError
from tools.benchmarks import convert, convert_scale, report
from tools.benchmarks import rounds as rounds_module
from tools.benchmarks.images import repeated
from tools.benchmarks.process import CommandFailed, run
from tools.benchmarks.rounds import Rounds, working_folder
from tools.benchmarks.shards import tiny_jpegs, write_shards
from tools.benchmarks.side_by_side import Spread, ratio, ratios_to, run_round, summarise
from tools.benchmarks.sides import ffcv

BENCH = str(REPOSITORY / "tools" / "bench.py")
MACHINE = {"command": "c", "commit": "abc", "cpus": 2, "processor": "p", "memory_gb": 3.0, "python": "3"} | {
    "load_1_min": 0.0,
    "versions": dict.fromkeys(("numpy", "simplejpeg", "opencv-python-headless", "ffcv"), "1"),
}


def command():
    """The script as a module, by its path."""
    spec = importlib.util.spec_from_file_location("bench_command", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measurement(wall_s, write_s=1.0, stored_bytes=100.0):
    """One side's figures of one round, as `run_round` gives them."""
    return {
        "wall_s": wall_s,
        "work_s": wall_s - 1,
        "cpu_s": 2 * wall_s,
        "write_s": write_s,
        "stored_bytes": stored_bytes,
    }


def watched(pss, rss=7.0):
    return {"peak_tree_pss": pss, "peak_tree_rss": rss, "peak_parent_rss": rss, "peak_num_processes": 3}


def measured_by_hand():
    """Three rounds of two sides, with times whose ratios are known."""
    theirs, ours = (10.0, 20.0, 30.0), (5.0, 5.0, 10.0)
    rounds = [
        {"ffcv": measurement(a, 4.0, 300.0), "feedrate": measurement(b)} for a, b in zip(theirs, ours, strict=True)
    ]
    return summarise(rounds, {"ffcv": watched(900.0), "feedrate": watched(300.0)}, ["ffcv", "feedrate"])


def test_a_ratio_is_of_the_pairs_of_each_round():
    # the medians alone would give 20 / 5 = 4
    assert ratio([10, 20, 30], [5, 5, 10]) == Spread(median=3, lowest=2, highest=4, n=3)
    assert Spread.of([4, 1, 2, 8]) == Spread(median=3, lowest=1, highest=8, n=4)


def test_every_figure_keeps_its_rounds_and_every_ratio_its_pairs():
    sides = measured_by_hand()
    assert sides["ffcv"]["wall_s"] == {"median": 20, "lowest": 10, "highest": 30, "n": 3, "rounds": [10, 20, 30]}
    ratios = ratios_to(sides, "ffcv", "feedrate")
    assert {name: found["median"] for name, found in ratios.items()} == {
        "process": 3, "work": pytest.approx(29 / 9), "write": 4, "cpu": 3, "stored_bytes": 3, "peak_memory": 3,
    }  # fmt: skip


def test_the_table_shows_medians_with_spreads_and_ratios_under_their_columns():
    sides = measured_by_hand()
    case = {"title": "A", "options": {"ffcv": ["--x"], "feedrate": []}, "sides": sides}
    case["ratios"] = {"feedrate": ratios_to(sides, "ffcv", "feedrate")}
    settings = {
        "images": "3 JPEGs",
        "num_samples": 40,
        "workers": 2,
        "rounds": 3,
        "ffcv": "installed",
        "in_one_go": True,
    }
    page = convert.page({"date": "today", "machine": MACHINE, "settings": settings, "cases": {"a": case}})
    assert "| ffcv | 20.0 s (10.0 … 30.0) | 19.0 s (9.0 … 29.0) | 4.00 s (4.00 … 4.00) |" in page
    assert "| ffcv ÷ feedrate | 3.00× (2.00 … 4.00) | 3.22× (2.25 … 4.75) | 4.00× (4.00 … 4.00) |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and {row.count("|") for row in rows} == {9}


def test_a_line_is_found_again_and_a_bent_curve_is_told_from_it():
    line = convert_scale.fit_line([100, 300, 700], [2.5, 3.5, 5.5])
    assert line == pytest.approx({"intercept": 2, "slope": 0.005, "r_squared": 1, "worst_share": 0}, abs=1e-9)
    bent = convert_scale.fit_line([1, 2, 3], [1, 4, 9])
    assert bent["r_squared"] < 0.98 and bent["worst_share"] > 0.3


def test_photos_are_repeated_without_being_copied(image_folder, tmp_path):
    assert repeated(image_folder, 3, tmp_path / "images") == 3 * 37  # of train alone
    links = sorted((tmp_path / "images" / "train" / "ant").iterdir())
    assert len(links) == 3 * 13 and links[0].stat().st_ino == links[2].stat().st_ino
    with pytest.raises(FeedrateError, match="holds no JPEGs"):
        repeated(tmp_path / "images" / "train" / "ant", 1, tmp_path / "more")


def test_shards_open_with_webdataset_and_whole_ones_are_stored_once(tmp_path, monkeypatch):
    import webdataset

    monkeypatch.setattr("tools.benchmarks.shards._SHARD_SAMPLES", 10)
    folders = write_shards(tmp_path, [25, 12], lambda num_samples: None)
    assert [path.name for path in sorted(folders[12].iterdir())] == ["train-000000.tar", "train-000001.tar"]
    assert (folders[12] / "train-000000.tar").samefile(folders[25] / "train-000000.tar")
    paths = [str(path) for path in sorted(folders[25].iterdir())]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [int(sample["cls"]) for sample in samples] == list(range(25))
    assert [sample["jpg"] for sample in samples] == tiny_jpegs()[:25]


def test_rounds_survive_an_interruption_but_not_other_settings(tmp_path):
    rounds = Rounds(tmp_path, {"workers": 2})
    rounds.add("a/0", {"x": 1.5})
    with open(tmp_path / "rounds.jsonl", "a") as file:
        file.write('["a/1", {"x"')  # killed while writing
    again = Rounds(tmp_path, {"workers": 2})
    assert again.done == {"a/0": {"x": 1.5}}
    again.add("a/1", {"x": 2.5})
    assert Rounds(tmp_path, {"workers": 2}).done == {"a/0": {"x": 1.5}, "a/1": {"x": 2.5}}
    assert Rounds(tmp_path, {"workers": 3}).done == {}


def test_a_folder_of_someone_elses_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FeedrateError, match="holds something else"), working_folder(tmp_path):
        pass
    with (
        working_folder(tmp_path / "work"),
        pytest.raises(FeedrateError, match="another measurement"),
        working_folder(tmp_path / "work"),
    ):
        pass


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    page = tmp_path / "page.md"
    report.write_text(page, "before")
    with pytest.raises(UnicodeEncodeError):
        report.write_text(page, "after \ud800")
    assert page.read_text() == "before" and list(tmp_path.iterdir()) == [page]


def test_a_run_that_hangs_is_ended_with_all_its_processes(tmp_path):
    script = "import os, time; pid = os.fork(); print(pid, flush=True); time.sleep(600)"
    started_s = time.monotonic()
    with pytest.raises(FeedrateError, match=r"was ended after 1 s \(--timeout-s\)"):
        run([sys.executable, "-c", script], tmp_path / "log", timeout_s=1)
    assert time.monotonic() - started_s < 300  # what hangs would sleep for 600
    for line in (tmp_path / "log.out").read_text().split():
        with contextlib.suppress(psutil.NoSuchProcess):
            assert line == "0" or psutil.Process(int(line)).status() == psutil.STATUS_ZOMBIE


def test_what_runs_ends_with_whoever_runs_it_even_if_that_is_killed(tmp_path):
    """Or it would run on beside whatever is measured next, and hold its working folder."""
    inner = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())); __import__('time').sleep(600)"
    runs = "import sys; from pathlib import Path; from tools.benchmarks.process import run; "
    runs += f"run([sys.executable, '-c', {inner!r}], Path({str(tmp_path / 'log')!r}), 600)"
    outer = subprocess.Popen([sys.executable, "-c", runs], cwd=REPOSITORY)
    assert settled(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", True)
    running = psutil.Process(int((tmp_path / "pid").read_text()))
    outer.kill()
    outer.wait()

    def is_over():
        try:
            return running.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    assert settled(is_over, True)


def test_a_run_that_fails_tells_its_last_line(tmp_path):
    with pytest.raises(FeedrateError, match="ended with status 3: no such thing"):
        run(
            [sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"],
            tmp_path / "log",
            60,
        )


@pytest.mark.parametrize(
    ("program", "said"), [("print('only here'); exit(3)", "only here"), ("exit(3)", "it said nothing")]
)
def test_a_run_that_fails_without_a_word_on_standard_error_tells_what_it_printed(tmp_path, program, said):
    with pytest.raises(CommandFailed) as failed:
        run([sys.executable, "-c", program], tmp_path / "log", 60)
    assert (failed.value.how, failed.value.is_late) == (f"ended with status 3: {said}", False)
    assert str(failed.value).startswith("python -c ")


def test_memory_of_a_process_and_of_all_it_started_is_seen(tmp_path):
    script = "import os, time; x = bytearray(100 << 20); os.fork(); x[::4096] = x[::4096]; time.sleep(3); os._exit(0)"
    peaks = run([sys.executable, "-c", script], tmp_path / "log", 60, is_watched=True).peaks
    assert peaks.num_processes == 2
    assert 100e6 < peaks.parent_rss < 200e6 and 200e6 < peaks.tree_rss < 400e6
    assert peaks.tree_pss <= peaks.tree_rss


@pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="ffcv is not installed")
def test_ffcvs_writer_is_run_and_its_file_is_counted(image_folder, tmp_path):
    num_samples = repeated(image_folder, 1, tmp_path / "images")
    side = ffcv(tmp_path / "images" / "train", convert.CASES["raw256"].ffcv, 1)
    measured = run_round([side], tmp_path, TIMEOUT_S, False, num_samples)["ffcv"]
    assert measured["num_samples"] == 37 and measured["max_side_px"] == 224
    assert 0 < measured["write_s"] <= measured["work_s"] < measured["wall_s"] - measured["import_s"]
    assert not (tmp_path / "out").exists()


def test_packing_beside_ffcv_goes_on_without_it_and_says_so(image_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None)
    arguments = [
        "convert",
        "--source",
        image_folder,
        "--repeat",
        "1",
        "--rounds",
        "2",
        "--cases",
        "raw256",
        "--workers",
        "1",
    ]
    arguments += ["--report", tmp_path, "--work", tmp_path / "work"]
    assert command().main([*map(str, arguments)]) == 0, capfd.readouterr().err
    told = capfd.readouterr().out
    assert "FFCV is not installed" in told and "round 2 of 2, raw256: feedrate" in told
    assert not (tmp_path / "work").exists()
    (written,) = tmp_path.glob("convert_*.json")
    content = json.loads(written.read_text())
    assert content["machine"]["commit"] is not None and content["settings"]["num_samples"] == 37
    side = content["cases"]["raw256"]["sides"]["feedrate"]
    for key in ("wall_s", "work_s", "write_s", "cpu_s", "stored_bytes"):
        # the work is the process less one that only starts, each as long as this machine made it
        assert len(side[key]["rounds"]) == side[key]["n"] == 2 and (side[key]["median"] > 0 or key == "work_s")
    assert side["max_side_px"]["median"] == 224 and side["peak_tree_rss"] > side["peak_parent_rss"] > 0
    assert content["cases"]["raw256"]["ratios"] == {}
    assert written.with_suffix(".md").read_text().count("| feedrate |") == 1
    assert command().main([*map(str, arguments)]) == 2
    assert "is there already: give --overwrite" in capfd.readouterr().err


def test_packing_many_samples_is_measured_and_drawn(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(convert_scale, "_NUM_OPENED", 1)
    arguments = ["convert-scale", "--samples", "20", "--rounds", "1", "--workers", "1"]
    assert command().main([*arguments, "--report", str(tmp_path), "--work", str(tmp_path / "work")]) == 0
    (written,) = tmp_path.glob("convert_scale_*.json")
    point = json.loads(written.read_text())["points"]["20"]
    assert point["num_samples"]["median"] == 20
    assert point["wall_s"]["median"] > 0 and point["open_s"]["median"] > 0 and point["peak_parent_rss"] > 0
    page = written.with_suffix(".md").read_text()
    assert written.with_suffix(".png").name in page and written.with_suffix(".png").stat().st_size > 10_000
    assert "| 20 |" in page and "fitted line" not in page  # one point makes none
    assert not (tmp_path / "work").exists()


def test_the_sizes_give_lines_in_the_page(tmp_path):
    rounds = Rounds(tmp_path, {})
    for size in (1_000_000, 2_000_000):
        figures = {**measurement(size / 1e5), "open_s": size / 1e6, "open_rss_bytes": 5e6}
        for number in (0, 1, 2):
            rounds.add(f"{size}/{number}", {"feedrate": {**figures, **({} if number else watched(size * 100.0))}})
    settings = convert_scale.ScaleSettings((2_000_000, 1_000_000), 2, 2, 1.0)
    measured = convert_scale._results(
        settings, rounds, {"images": "tiny", "workers": 2, "rounds": 2, "in_one_go": False}
    )
    page = convert_scale.page({"date": "today", "machine": MACHINE, **measured}, "curve.png")
    assert "| 1,000,000 | 10.0 s (10.0 … 10.0) | 9.00 s (9.00 … 9.00) | 100,000 |" in page
    assert "interrupted and continued" in page
    assert page.index("| 1,000,000 |") < page.index("| 2,000,000 |")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    slopes = {row[0]: row[2] for row in rows if len(row) == 5}
    assert slopes["process"] == "10 s" and slopes["opening"] == "1 s" and slopes["all processes' memory"] == "100 MB"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "--repaet", "2"], "convert has no option '--repaet': did you mean --repeat?"),
        (["--bogus", "1"], "--bogus stands where the command belongs: first one of convert, convert-scale,"),
        (["convert", "--cases", "raw25"], "did you mean raw256?"),
        (["convert", "--rounds", "0"], "not a whole number of 1 or more"),
        (["convert-scale", "--samples", "10,x"], "'x' is not a whole number"),
        (["convert", "--report", "no/such"], "no/such is no folder"),
        (["convert", "--source", "no/such"], "no/such is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, tmp_path, capfd):
    options = [] if "--report" in words else ["--report", str(tmp_path)]
    assert command().main([*words, *options, "--work", str(tmp_path / "work")]) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1


@pytest.mark.parametrize("name", ["what-if", "cold-memory", "profilers", "cifar-speed"])
@pytest.mark.parametrize("minutes", ["0", "-1", "4000", "nan", "some"])
def test_minutes_are_judged_before_anything_is_measured_and_the_sentence_says_which_may_be(name, minutes):
    words = f"'{minutes}' is not a number of minutes above 0 and at most [0-9,]+ "
    with pytest.raises(FeedrateError, match=words):
        command().parse([name, "--minutes", minutes])


def test_rounds_that_are_kept_are_not_measured_again_and_how_long_the_others_take_is_told(tmp_path, monkeypatch):
    clock = iter([0.0, 60.0, 240.0])
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: next(clock))
    kept, said = Rounds(tmp_path, {}), []
    kept.add("small/0", "bad")
    kept.add("small/1", "good")
    asked = [("small", 0), ("large", 0), ("small", 1)]
    assert kept.missing(asked, said.append) == [("large", 0)]
    todo = kept.missing(asked, said.append, lambda measured: measured != "bad")
    assert todo == [("small", 0), ("large", 0)]
    assert said == [f"{num} of 3 rounds were measured before: going on after them" for num in (2, 1)]
    said.clear()
    weight = {"small": 1, "large": 3}.get
    kept.measure_each(
        todo, 1, lambda name, number: f"{name} {number}", lambda *told: ": ".join(told), said.append, weight
    )
    assert said == [
        "memory, small: small 0; about 3.0 min left",
        "memory, large: large 0; about 0.0 min left",
    ]
    assert Rounds(tmp_path, {}).done == {"small/0": "small 0", "small/1": "good", "large/0": "large 0"}


def test_what_failed_is_written_without_and_told_with_the_command_that_tries_it_again(tmp_path):
    chosen = argparse.Namespace(report=tmp_path, overwrite=False, work=tmp_path / "work")

    def measure():
        return {"failed": {"b": "out of memory"}}

    def page(measured):
        return "# What there is\n"

    with pytest.raises(FeedrateError, match=r"without what failed \(b: out of memory\): .* with --overwrite tries it"):
        report.measured_and_written(chosen, "some", measure, page)
    assert chosen.work.is_dir()  # what it goes on from
    with pytest.raises(FeedrateError, match="--overwrite to replace it"):
        report.measured_and_written(chosen, "some", measure, page)
    chosen.overwrite = True
    written = report.measured_and_written(chosen, "some", lambda: {"failed": {}}, page)
    assert written["md"].read_text() == "# What there is\n" and not chosen.work.exists()
