"""tools/bench.py load: a small real run, how a window is timed, and what is made of the figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import write_image_folder
from test_bench import command

from loaders.errors import FeedrateError
from loaders.page_eviction import resident_pages
from tools.benchmarks import parity
from tools.benchmarks.loading import cold, compare, once
from tools.benchmarks.loading.cases import CASES, DEFAULT_CASES
from tools.benchmarks.loading.compare import LoadSettings, chosen_sides, result
from tools.benchmarks.loading.data import Stored
from tools.benchmarks.loading.job import Job
from tools.benchmarks.loading.sides import SIDES
from tools.benchmarks.process import Ran
from tools.benchmarks.rounds import Rounds

JOB = Job("turbo", {"beton": "somewhere"}, "photos", 8, 4, 2, 1.0, 0.0, 0)
SETTINGS = LoadSettings(("raw256",), None, None, 1, 3, 2, 64, 1.0, 60.0)


class Clock:
    """Seconds that pass as batches are taken."""

    def __init__(self):
        self.now_s = 0.0

    def stream(self, s_per_batch):
        for number in range(1000):
            self.now_s += s_per_batch
            yield torch.zeros(4, 3, 8, 8) + number

    def __call__(self):
        return self.now_s


def test_a_window_is_as_long_as_asked_and_ends_with_a_group_of_batches():
    clock = Clock()
    figures = once.measure(clock.stream(0.3), 4, 1.0, 3, clock)
    # 4 batches would do; the next multiple of 3 is 6
    assert figures["num_images"] == 24
    assert figures["wall_s"] == pytest.approx(1.8) and figures["s_per_image"] == pytest.approx(0.075)
    assert 0 <= figures["cpu_s_per_image"] < 1


def test_files_that_are_mapped_are_evicted_too_and_keep_their_bytes(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8)
    content.tofile(tmp_path / "file")
    mapped = np.memmap(tmp_path / "file", np.uint8, "r")
    whole = [(tmp_path / "file", 0, 3 << 20)]
    assert np.array_equal(mapped, content) and resident_pages(whole) == (768, 768)
    cold.evict(tmp_path)
    assert resident_pages(whole)[0] <= 38
    assert np.array_equal(mapped, content)


def test_warming_up_leaves_whole_groups_taken():
    stream = iter(range(2, 1000))  # batch 1 was the first
    once.warm_up(stream, 0.0, 4)
    assert next(stream) == 5


@pytest.mark.parametrize("images", [torch.zeros(4, 3, 8, 8), torch.zeros(4, 8, 8, 3, dtype=torch.uint8)])
def test_a_side_that_delivers_something_else_is_not_measured(images):
    once.check(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), SIDES["turbo"], JOB)
    with pytest.raises(ValueError, match="instead of uint8"):
        once.check(images, SIDES["turbo"], JOB)


def test_processor_time_counts_processes_that_ended():
    before_s = once.processor_time_s()
    context = torch.multiprocessing.get_context("fork")
    worker = context.Process(target=lambda: sum(number * number for number in range(3_000_000)))
    worker.start()
    worker.join()
    assert once.processor_time_s() - before_s > 0.05


def test_every_case_names_sides_that_can_read_it_and_references_that_deliver_alike():
    assert set(DEFAULT_CASES) <= set(CASES)
    for name, case in CASES.items():
        assert chosen_sides(name, case.sides) == case.sides, name
        for output, (ours, peer) in case.references.items():
            assert SIDES[ours].is_ours and not SIDES[peer].is_ours
            assert SIDES[ours].output == SIDES[peer].output == output
    assert chosen_sides("cifar", ["turbo", "cifar-dataloader"]) == ("turbo", "cifar-dataloader")
    assert chosen_sides("raw256", ["turbo", "cifar-dataloader"]) == ("turbo",)
    with pytest.raises(
        FeedrateError, match="none of timm, webdataset reads what case 'raw256' stores, photos as beton"
    ):
        chosen_sides("raw256", ("timm", "webdataset"))


def rounds_by_hand():
    """Memory, and three rounds of two sides and one that is missing."""
    figures = {"cpu_s_per_image": 0.0005, "first_batch_s": 3.0}
    watched = {"peak_tree_pss": 5e8, "peak_tree_held": 4e8, "peak_tree_rss": 6e8}
    skipped = {"skipped": "it is not there: install it"}
    done = {"raw256/0": {"load_1_min": 9.0, "sides": {"turbo": watched, "ffcv-stock": watched, "ffcv": skipped}}}
    for number, (ours, theirs) in enumerate([(1.0, 2.0), (2.0, 2.0), (1.0, 3.0)], 1):
        sides = {
            "turbo": {**figures, "s_per_image": ours / 1000},
            "ffcv-stock": {**figures, "s_per_image": theirs / 1000},
        }
        done[f"raw256/{number}"] = {"load_1_min": 0.1 * number, "sides": sides}
    return done


def test_speedups_are_of_each_round_and_who_was_missing_stays_listed():
    found = result("raw256", SETTINGS, rounds_by_hand(), Stored({}, 500, {"beton": 1e5}))
    # the medians alone would give 2 too; highest and lowest tell
    assert found["speedups"] == {"turbo": {"ffcv-stock": {"median": 2, "lowest": 1, "highest": 3, "n": 3}}}
    assert found["skipped"] == {"ffcv": "it is not there: install it"}
    assert found["load_1_min"] == pytest.approx([0.1, 0.2, 0.3])
    assert found["sides"]["turbo"]["s_per_image"]["rounds"] == [0.001, 0.002, 0.001]


def test_the_page_has_every_side_with_its_ratios_and_who_was_missing():
    from tools.benchmarks.loading.page import page

    case = result("raw256", SETTINGS, rounds_by_hand(), Stored({}, 500, {"beton": 1e5}))
    versions = dict.fromkeys(("numpy", "simplejpeg", "opencv-python-headless", "ffcv"), "1")
    machine = {"command": "c", "commit": "a", "cpus": 2, "processor": "p", "memory_gb": 3.0, "python": "3"}
    machine |= {"load_1_min": 0.0, "versions": versions}
    settings = {"images": "photos × 1", "workers": 2, "seconds": 1.0, "rounds": 3, "in_one_go": True, "packages": {}}
    written = page({"date": "today", "machine": machine, "settings": settings, "cases": {"raw256": case}}, "x.png")
    assert "| turbo | uint8 | 1,000 (500 … 1,000) | 500 µs | 3.0 s | 500 MB | 400 MB |  | 2.00× (1.00 … 3.00) |" in (
        written
    )
    assert "| ffcv-stock | uint8 | 500 (333 … 500) | 500 µs | 3.0 s | 500 MB | 400 MB | 2.00× (1.00 … 3.00) |  |" in (
        written
    )
    assert "`ffcv` was skipped: it is not there: install it" in written


def test_a_side_that_is_missing_is_told_with_what_installs_it_and_not_run_again(tmp_path, monkeypatch):
    asked, told = [], []

    def run(command, log, timeout_s, is_watched):
        job = Job.read(command[-1])
        asked.append(job.side)
        figures = {"s_per_image": 1.0, "cpu_s_per_image": 1.0, "first_batch_s": 1.0}
        if job.side == "timm":
            figures = {"unavailable": "No module named 'timm'"}
        if job.side == "spdl":
            raise FeedrateError("it ended with status 1: no FFmpeg")
        return Ran(1.0, 1.0, json.dumps(figures) + "\n", None)

    monkeypatch.setattr(compare, "run", run)
    settings = replace(SETTINGS, cases=("full",), num_rounds=2)
    runner = compare._Runner(settings, Rounds(tmp_path, {}), {"full": Stored({}, 500, {"beton": 1e5})}, told.append)
    runner.run_all({"full": ("turbo", "timm", "spdl")})
    assert asked == ["turbo", "timm", "spdl", "turbo", "turbo"]
    assert any("timm is skipped: No module named 'timm': uv pip install" in line for line in told)
    assert any("spdl is skipped: it ended with status 1: no FFmpeg: uv pip install" in line for line in told)


def test_a_side_that_goes_missing_after_its_first_round_ends_the_measurement(tmp_path, monkeypatch):
    figures = {"s_per_image": 1.0, "cpu_s_per_image": 1.0, "first_batch_s": 1.0}
    told = iter([figures, {"unavailable": "No module named 'timm'"}])
    monkeypatch.setattr(compare, "run", lambda *words: Ran(1.0, 1.0, json.dumps(next(told)) + "\n", None))
    runner = compare._Runner(SETTINGS, Rounds(tmp_path, {}), {"full": Stored({}, 500, {"beton": 1e5})}, print)
    with pytest.raises(FeedrateError, match="No module named 'timm'"):
        runner.run_all({"full": ("timm",)})


def test_a_quick_run_of_two_sides_writes_page_figures_and_picture(tmp_path, capfd):
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 4, "bee": 4}})
    words = ["load", "--quick", "--source", str(source), "--cases", "full", "--sides", "turbo,dataloader"]
    words += ["--batch-size", "4", "--workers", "1", "--report", str(tmp_path), "--work", str(tmp_path / "work")]
    assert command().main(words) == 0, capfd.readouterr().err
    told = capfd.readouterr().out
    assert "round 1 of 1, full: turbo" in told and "dataloader" in told
    assert not (tmp_path / "work").exists()
    (written,) = tmp_path.glob("load_*.json")
    case = json.loads(written.read_text())["cases"]["full"]
    assert case["num_samples"] == 8 and case["skipped"] == {}
    for side in ("turbo", "dataloader"):
        figures = case["sides"][side]
        assert figures["s_per_image"]["n"] == 1 and figures["cpu_s_per_image"]["median"] > 0
        assert figures["first_batch_s"]["median"] > figures["s_per_image"]["median"] > 0
        assert figures["peak_tree_rss"] > 50e6
    assert case["speedups"]["turbo"]["dataloader"]["n"] == 1
    assert written.with_suffix(".md").read_text().count("| dataloader | uint8 |") == 1
    assert written.with_suffix(".png").stat().st_size > 5000


def test_a_difference_counts_grey_levels_and_images_that_are_equal():
    reference = np.full((4, 2, 2, 3), 100, np.uint8)
    images = reference.copy()
    images[1, 0, 0, 0], images[2, 1, 1, 2] = 40, 112  # 60 below, 12 above: unsigned numbers would wrap round
    assert parity.Difference.between(images, reference) == parity.Difference(72 / 48, 60, 2, 4)
    with pytest.raises(ValueError, match="is compared with"):
        parity.Difference.between(images[:3], reference)


def test_parity_finds_loaders_equal_to_plain_code_and_lists_what_cannot_run(tmp_path, monkeypatch, capfd):
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 4, "bee": 4}})
    monkeypatch.setattr(parity, "STORED", ("full",))
    monkeypatch.setattr(parity, "_MODES", {"torchvision": ("exact",), "turbo": ("device", "bicubic", "area")})
    words = ["parity", "--source", str(source), "--workers", "1", "--report", str(tmp_path)]
    assert command().main([*words, "--work", str(tmp_path / "work")]) == 0, capfd.readouterr().err
    (written,) = tmp_path.glob("parity_*.json")
    rows = json.loads(written.read_text())["rows"]
    assert [row["loader"] for row in rows] == 2 * [
        "plain OpenCV INTER_AREA",
        "torchvision's own",
        "torchvision",
        *["turbo"] * 3,
    ]
    for plain, cubic, torchvision, device, turbo_cubic, area in (rows[:6], rows[6:]):
        assert plain["largest"] > 0 < cubic["largest"]  # the ways to resize do differ, or the table would prove nothing
        assert "needs raw samples" in device["skipped"]
        for row in (torchvision, turbo_cubic, area):
            assert (row["mean"], row["largest"], row["num_equal"], row["num_images"]) == (0, 0, 8, 8)
    assert "| full | training | turbo | area | area | 0.0000 | 0 | 8 of 8 |" in written.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sides", "turbo,tubo"], "'tubo' is unknown: did you mean turbo?"),
        (["--cases", "fulll"], "did you mean full?"),
        (["--seconds", "0"], "'0' is not a number of seconds above 0"),
        (["--cases", "raw256", "--sides", "timm"], "none of timm reads what case 'raw256' stores"),
        (["--batch", "8"], "load has no option '--batch'"),
        (["--source", "no/such"], "no/such is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, tmp_path, capfd):
    assert command().main(["load", *words, "--report", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1
