"""tools/bench.py ceilings, end-to-end and cifar-speed: turns, what is made of the figures, and small real runs."""

import json
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_image_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "loaders"))
from stored_samples import write_cifar10
from test_bench import MACHINE, command
from test_bench_train import CPU, Clock, train

from engine.safeguards.memory import OutOfMemory
from loaders.errors import FeedrateError, LoaderError
from loaders.records import open_records
from tools.benchmarks.device import ceilings, cifar_once, cifar_speed, end_to_end, page, turns
from tools.benchmarks.device.cifar_job import CifarJob, CifarRun
from tools.benchmarks.device.cifar_ours import Ours
from tools.benchmarks.device.turns import SKIPPED, Timing
from tools.benchmarks.process import Ran
from tools.benchmarks.rounds import Rounds
from tools.benchmarks.telling import Stopped, tell
from tools.benchmarks.training.job import Job
from tools.benchmarks.training.once import group_of
from tools.benchmarks.training.ours import config_of
from tools.benchmarks.training.window import Window
from tools.gpu_checks import found, utilisation

SHOWN = {**MACHINE, "gpus": [], "versions": {**MACHINE["versions"], "torch": "9"}}
TIMING = Timing(2, 2, 1.0, 60.0)
JOB = Job("feedrate", "images/train", "packed", "run", 32, 4, "fp16", True, "cpu", 1, 2, 1.0, 0.0)


def test_several_windows_follow_one_another_without_a_gap():
    clock = Clock()
    window = Window(0.0, 1.0, 1, CPU, clock, num_windows=3)
    given = train(window, clock, [[4] * 100], 0.3)
    assert len(given) == 2 + 3 * 4
    assert window.each == pytest.approx([0.075] * 3)
    assert window.figures["num_images"] == 48 and window.figures["wall_s"] == pytest.approx(3.6)


def test_a_job_sets_model_loader_and_compilation():
    config = config_of(replace(JOB, model="resnet50", loader="dali", compile=True), "images")
    assert (config.model.name, config.loader, config.execution.compile) == ("resnet50", "dali", True)
    assert config.execution.precision == "fp16" and not config_of(JOB, "images").execution.compile
    graphs = config_of(replace(JOB, compile=True, cuda_graphs=True), "images")
    assert graphs.execution.cuda_graphs and not config.execution.cuda_graphs
    assert config_of(replace(JOB, loader="dali"), "resident").loader == "synthetic"


def figures(*windows, feed="resident"):
    return {feed: {"s_per_image": sum(windows) / len(windows), "windows": list(windows)}}


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        (OutOfMemory("out of memory: a batch of 6"), True),
        (LoaderError("the GPU failed"), True),
        (Stopped("feedrate ended before its window did"), True),
        (FeedrateError("loader 'dali' needs nvidia.dali"), False),
        (ModuleNotFoundError("No module named 'timm'"), False),
    ],
)
def test_what_began_and_failed_is_not_what_cannot_be_had_here(error, is_failure, capsys):
    def measure():
        raise error

    status, told = tell(measure), capsys.readouterr()
    if is_failure:
        assert (status, told.out, told.err) == (2, "", f"error: {error}\n")
    else:
        assert (status, json.loads(told.out), told.err) == (0, {"unavailable": str(error)}, "")
    assert tell(lambda: {"images": 3}) == 0 and json.loads(capsys.readouterr().out) == {"images": 3}


def test_runs_take_turns_and_one_that_fails_costs_no_other_its_figures(tmp_path, monkeypatch):
    asked, broken = [], {"b"}

    def run(words, log, timeout_s):
        job = Job.read(words[-1])
        asked.append(job.model)
        if job.model in broken:
            raise FeedrateError("it ended with status 1: out of memory")
        told = {"unavailable": "no timm"} if job.model == "c" else figures(0.5, 0.7)
        return Ran(1.0, 1.0, f"something else\n{json.dumps(told)}\n", None)

    monkeypatch.setattr(turns, "run", run)
    jobs = {name: replace(JOB, model=name) for name in ("a", "b", "c")}
    rounds = Rounds(tmp_path, {})
    turns.take_turns(jobs, TIMING, rounds, lambda text: None)
    assert asked == ["a", "b", "c", "a"]  # the second round begins with b, which is not tried again
    assert turns.skipped("b", 2, rounds.done) == "it ended with status 1: out of memory"
    assert turns.skipped("c", 2, rounds.done) == "no timm" and turns.skipped("a", 2, rounds.done) == ""
    of_a = turns.spread("a", "resident", 2, rounds.done)
    assert (of_a["median"], of_a["lowest"], of_a["highest"], of_a["n"]) == (0.6, 0.5, 0.7, 4)
    assert of_a["rounds"] == [0.6, 0.6]
    assert turns.failures(jobs, 2, rounds.done) == {"b": "it ended with status 1: out of memory"}
    asked.clear()
    again = Rounds(tmp_path, {})
    turns.take_turns(jobs, TIMING, again, lambda text: None)
    assert asked == ["b"]  # what failed, once
    asked.clear()
    broken.clear()
    turns.take_turns(jobs, TIMING, again, lambda text: None)
    assert asked == ["b", "b"] and turns.failures(jobs, 2, again.done) == {}
    assert turns.spread("b", "resident", 2, Rounds(tmp_path, {}).done)["n"] == 4
    turns.take_turns(jobs, TIMING, Rounds(tmp_path, {}), lambda text: None)
    assert asked == ["b", "b"]


def test_of_runs_that_were_ended_the_finished_rounds_are_told(tmp_path):
    settings = ceilings.CeilingSettings(
        ("m",), ("bf16", "torchvision-amp", "fp16"), 2, 32, "cpu", 1, replace(TIMING, finished_only=True)
    )
    done = {"m bf16/1": figures(0.1, 0.1), "m torchvision-amp/1": figures(0.2, 0.2)}
    done["m torchvision-amp/2"] = figures(0.4, 0.4)  # the second round begins with it
    of_m = ceilings.result("m", settings, done)
    assert of_m["variants"]["bf16"]["times_reference"] == {"median": 2.0, "lowest": 2.0, "highest": 2.0, "n": 1}
    assert of_m["variants"]["torchvision-amp"]["s_per_image"]["n"] == 4
    assert of_m["skipped"] == {"fp16": "its turn had not come when the time was over"}
    rounds = Rounds(tmp_path, {})
    for name, one in done.items():
        rounds.add(name, one)
    jobs = {f"m {name}": JOB for name in settings.variants}
    assert turns.take_turns(jobs, settings.timing, Rounds(tmp_path, {}), print) == 3
    assert Rounds(tmp_path, {}).done == done


def test_the_rounds_of_one_model_outlive_those_of_another_from_the_same_images(tmp_path, monkeypatch):
    made = []

    def run(words, log, timeout_s):
        job = Job.read(words[-1])
        made.append(job.model)
        return Ran(1.0, 1.0, json.dumps({feed: figures(0.5)["resident"] for feed in job.feeds}), None)

    monkeypatch.setattr(turns, "run", run)
    monkeypatch.setattr(end_to_end, "_pack", lambda *words: 16)
    one = end_to_end_settings(source=tmp_path / "photos")
    other = replace(one, model="n", forms=("400",), alone=False)
    for settings in (one, other):
        end_to_end.measure(settings, tmp_path, lambda text: None)
    made.clear()
    again = end_to_end.measure(replace(one, timing=replace(TIMING, num_rounds=3)), tmp_path, lambda text: None)
    assert made == ["m"] * 3 and again["settings"]["num_samples"] == 16
    told = end_to_end.measure(replace(one, timing=replace(TIMING, num_rounds=4, finished_only=True)), tmp_path, print)
    assert made == ["m"] * 3 and told["settings"]["missing_runs"] == 3 and told["settings"]["num_samples"] == 16
    assert told["ceiling"]["n"] == 3
    assert "**unfinished: 3 runs are missing**" in page.end_to_end_page({"date": "today", "machine": SHOWN, **told})


def test_batches_come_in_groups_where_each_worker_makes_its_own():
    job = replace(JOB, num_workers=16)
    assert group_of(replace(job, loader="torchvision"), "images") == 16 == group_of(replace(job, side="timm"), "images")
    assert [group_of(replace(job, loader=name), "images") for name in ("turbo", "ffcv", "dali", "resident")] == [1] * 4
    assert group_of(replace(job, side="timm"), "resident") == 1


def test_ceilings_are_compared_with_torchvisions_amp_round_by_round(tmp_path):
    settings = ceilings.CeilingSettings(("m",), ("bf16", "torchvision-amp", "timm-amp"), 2, 32, "cpu", 1, TIMING)
    done = {
        "m bf16/1": figures(0.1, 0.1),
        "m bf16/2": figures(0.2, 0.2),
        "m torchvision-amp/1": figures(0.2, 0.2),
        "m torchvision-amp/2": figures(0.3, 0.3),
        "m timm-amp/1": {SKIPPED: "no timm"},
    }
    of_m = ceilings.result("m", settings, done)
    times = of_m["variants"]["bf16"]["times_reference"]
    assert times == pytest.approx({"median": 1.75, "lowest": 1.5, "highest": 2.0, "n": 2})
    assert of_m["skipped"] == {"timm-amp": "no timm"} and of_m["variants"]["bf16"]["s_per_image"]["n"] == 4
    told = {"batch_size": 2, "size_px": 32, "device": "cpu", "windows": 2, "seconds": 1.0, "rounds": 2}
    measured = {"date": "today", "machine": SHOWN, "settings": {**told, "in_one_go": True}, "models": {"m": of_m}}
    text = page.ceilings_page({**measured, "sides": {"timm": "its loop"}})
    assert "| bf16, channels-last | 6.7 (5.0 … 10.0) | 1.75× (1.50 … 2.00) |" in text
    assert "`timm-amp` was skipped: no timm" in text and "torch 9, on the CPU" in text
    (tmp_path / "ceilings_today.json").write_text(json.dumps(measured))
    assert found.ceilings(tmp_path)[0].what == "m, bf16, channels-last"
    assert "1.75× (1.50 … 2.00) torchvision's loop with AMP" in found.ceilings(tmp_path)[0].figure


def end_to_end_settings(**changes):
    settings = end_to_end.EndToEndSettings(
        "m", ("full",), ("turbo", "dali"), None, 1, 2, 32, "bf16", False, "cpu", 1, 1, True, TIMING
    )
    return replace(settings, **changes)


def test_the_share_is_of_the_step_alone_and_who_was_missing_stays_listed(tmp_path):
    both = {**figures(0.01, 0.03, feed="loader"), **figures(0.125, 0.125, feed="images")}
    done = {f"the step alone/{n}": figures(0.1, 0.1) for n in (1, 2)}
    slow = {**both, "slower_because": "slower than it could be: jpeglib.h is missing"}
    done |= {"full turbo/1": slow, "full turbo/2": slow, "full dali/1": {SKIPPED: "not installed"}}
    measured = end_to_end.result(end_to_end_settings(), done)
    full = measured["forms"]["full"]
    assert full["loaders"]["turbo"]["share"] == pytest.approx({"median": 0.8, "lowest": 0.8, "highest": 0.8, "n": 2})
    assert full["loaders"]["turbo"]["alone"]["median"] == 0.02 and full["skipped"] == {"dali": "not installed"}
    told = {"model": "m", "images": "photos × 1", "is_generated": True, "compiled": False, "precision": "bf16"}
    told |= {"batch_size": 2, "size_px": 32, "device": "cpu", "windows": 2, "seconds": 1.0, "rounds": 2}
    told |= {"num_samples": 16, "workers": 1, "in_one_go": True}
    measured |= {"date": "today", "machine": SHOWN, "settings": told}
    text = page.end_to_end_page(measured)
    assert "| `turbo` | 50.0 (33.3 … 100.0) | 8.0 (8.0 … 8.0) | 80.0 % (80.0 … 80.0) |" in text
    assert "generated, not photos" in text and "`dali` was skipped: not installed" in text
    assert "`turbo` was slower than it could be: jpeglib.h is missing" in text
    (tmp_path / "end_to_end_m.json").write_text(json.dumps(measured))
    told = found.end_to_end(tmp_path)[1].figure
    assert "share 80.0 %" in told and told.endswith("slower than it could be: jpeglib.h is missing")
    with pytest.raises(FeedrateError, match="the step alone could not be measured: no memory"):
        end_to_end.result(end_to_end_settings(), {"the step alone/1": {SKIPPED: "no memory"}})


@pytest.mark.parametrize("words", [["ceilings", "--models", "resnet18", "--variants", "bf16"], ["end-to-end"]])
def test_a_small_run_measures_and_writes_its_report(words, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 8, "bee": 8}})
    if words == ["end-to-end"]:
        words += ["--model", "resnet18", "--forms", "raw256", "--loaders", "turbo", "--source", str(source)]
        words += ["--repeat", "1", "--precision", "fp32", "--workers", "1", "--keep-work"]
    words += ["--batch-size", "2", "--size-px", "32", "--threads", "1", "--windows", "2", "--seconds", "0.01"]
    words += ["--rounds", "1", "--device", "cpu", "--report", str(tmp_path), "--work", str(tmp_path / "work")]
    assert command().main(words) == 0, capfd.readouterr().err
    (written,) = tmp_path.glob("*.json")
    measured = json.loads(written.read_text())
    assert written.with_suffix(".md").read_text() in capfd.readouterr().out
    if words[0] == "ceilings":
        assert measured["models"]["resnet18"]["variants"]["bf16"]["s_per_image"]["n"] == 2
        assert not (tmp_path / "work").exists()
    else:
        one = measured["forms"]["raw256"]["loaders"]["turbo"]
        assert one["alone"]["lowest"] < one["together"]["highest"] and one["share"]["median"] > 0
        assert "switched off by FEEDRATE_NATIVE=0" in one["slower_because"]
        assert (
            "**Loader `turbo` is slower than it could be: the native kernel is switched off"
            in written.with_suffix(".md").read_text()
        )
        assert measured["settings"]["num_samples"] == 16 and (tmp_path / "work" / "raw256").is_dir()


# CIFAR-10 against the clock


def cifar_run(epoch_s, accuracy, final=None):
    return CifarRun(epoch_s, accuracy, accuracy[-1] if final is None else final)


def test_time_to_an_accuracy_is_that_of_the_epochs_until_it():
    run = cifar_run([1.0, 2.0, 4.0], [0.5, 0.9, 0.8])
    assert (run.train_s, run.reached_s(0.4), run.reached_s(0.85), run.reached_s(0.95)) == (7.0, 1.0, 3.0, None)
    runs = {
        "feedrate": [run, cifar_run([1.0] * 3, [0.1, 0.2, 0.8])],
        "airbench": [cifar_run([2.0], [0.1], 0.8), cifar_run([4.0], [0.1], 0.9)],
    }
    measured = cifar_speed.result(runs)
    assert measured["target"] == pytest.approx(0.85)
    assert measured["reached"]["num_reached"] == 1 and measured["reached"]["seconds"]["median"] == 3.0
    sentence = cifar_speed.sentence(measured)
    assert sentence.startswith("1 of our 2 runs reached 85.00%") and "after 3.00 s of training" in sentence
    told = {
        "data": "cifar10-packed",
        "options": [],
        "asked_runs": 2,
        "minutes": 1.0,
        "device": "cpu",
        "in_one_go": True,
    }
    others = {"skipped": {}, "ended_early": {"airbench": "it hung"}}
    text = cifar_speed.page({"date": "today", "machine": SHOWN, "settings": told, **others, **measured})
    assert "* `airbench` ended early: it hung" in text
    assert "| airbench | 2 | 3.00 s (2.00 … 4.00) | 85.00% ± 7.07% | 80.00% … 90.00% |" in text
    alone = cifar_speed.result({"feedrate": runs["feedrate"]})
    assert cifar_speed.sentence(alone).startswith("`airbench` did not run")
    assert cifar_speed.sentence(cifar_speed.result({"airbench": runs["airbench"]})).startswith("`feedrate` did not run")
    never = cifar_speed.result({**runs, "airbench": [cifar_run([1.0], [0.99])]})
    assert cifar_speed.sentence(never).startswith("None of our 2 runs reached 99.00%")


def test_our_side_trains_from_scratch_with_a_seed_each_and_leaves_nothing(tmp_path):
    data = write_cifar10(tmp_path / "cifar")
    options = "--epochs 2 --data.expected-classes 0 --data.batch-size 8 --data.eval-batch-size-per-rank 8"
    folder = tmp_path / "runs"
    job = CifarJob(
        "feedrate", str(data), str(folder), str(tmp_path), 2, 1.0, "cpu", [*options.split(), "--execution.threads", "1"]
    )
    threads = torch.get_num_threads()
    try:
        side = Ours(job)
        side.warm_up()
        runs = [side.run(number) for number in (0, 1)]
    finally:
        torch.set_num_threads(threads)
    assert all(len(run.epoch_s) == len(run.accuracy) == 2 and min(run.epoch_s) > 0 for run in runs)
    assert all(run.final == run.accuracy[-1] for run in runs) and not list(folder.iterdir())


def cifar_settings(data, **changes):
    settings = cifar_speed.CifarSettings(data, ("feedrate", "airbench"), 3, 1.0, "cpu", (), 60.0)
    return replace(settings, **changes)


def test_runs_of_a_call_that_was_ended_count_and_the_next_adds_to_them(tmp_path, monkeypatch):
    data, asked, ends = write_cifar10(tmp_path / "cifar"), [], {"feedrate": 1, "airbench": 0}

    class Side:
        def __init__(self, job):
            self.job = job

        def warm_up(self):
            pass

        def run(self, number):
            asked.append((self.job.side, number))
            if number == ends[self.job.side]:
                raise FeedrateError("the process was ended")
            return cifar_run([1.0], [0.5 + number / 10])

    def run(words, log, timeout_s):
        job = CifarJob.read(words[-1])
        cifar_once.measure(job, job.rounds())
        return Ran(1.0, 1.0, '{"num_runs": 1}\n', None)

    monkeypatch.setattr(cifar_speed, "run", run)
    for module in ("cifar_ours.Ours", "cifar_airbench.Airbench"):
        name, _, class_name = module.partition(".")
        stand_in = types.SimpleNamespace(**{class_name: Side})
        monkeypatch.setitem(sys.modules, f"tools.benchmarks.device.{name}", stand_in)
    first = cifar_speed.measure(cifar_settings(data), tmp_path, print)
    assert first["sides"]["feedrate"]["final"]["n"] == 1 and first["skipped"] == {"airbench": "the process was ended"}
    assert first["ended_early"] == {"feedrate": "the process was ended"} and first["settings"]["in_one_go"]
    assert first["failed"] == {**first["ended_early"], **first["skipped"]}
    asked.clear()
    told = cifar_speed.measure(cifar_settings(data, finished_only=True), tmp_path, print)
    assert not asked and told["sides"] == first["sides"] and told["skipped"] == {"airbench": "no run of it is finished"}
    ends |= dict.fromkeys(ends, None)
    second = cifar_speed.measure(cifar_settings(data), tmp_path, print)
    assert asked == [("feedrate", 1), ("feedrate", 2), *(("airbench", number) for number in range(3))]
    accuracies = [run["final"] for run in second["sides"]["feedrate"]["runs"]]
    assert accuracies == pytest.approx([0.5, 0.6, 0.7]) and second["reached"]["num_runs"] == 3
    assert not second["settings"]["in_one_go"] and not second["ended_early"] and not second["failed"]
    asked.clear()
    alone = cifar_speed.measure(cifar_settings(data, sides=("airbench",)), tmp_path, print)
    assert not asked and alone["reached"] is None and list(alone["sides"]) == ["airbench"]
    cifar_speed.measure(cifar_settings(data, num_runs=50, minutes=1e-9), tmp_path, print)
    assert asked == [("feedrate", 3), ("airbench", 3)]  # one at least


class StandInBench(types.ModuleType):
    """What is used of the package airbench 0.1.8, doing nothing: it can be run on a GPU alone."""

    def __init__(self):
        super().__init__("airbench")
        self.utils = types.ModuleType("airbench.utils")
        self.utils.print_training_details = lambda variables, is_final_entry: None
        self.lib_airbench94 = types.SimpleNamespace(hyp={"opt": {"batch_size": 4}, "aug": {"flip": True}})
        self.asked = []

    def CifarLoader(self, path, **options):
        return torch.load(f"{path}/train.pt"), torch.load(f"{path}/test.pt"), options

    def warmup94(self, loader):
        self.asked.append("warm-up")

    def train94(self, loader, verbose, run=0, epochs=2):
        self.asked.append((epochs, run, torch.initial_seed()))
        if verbose:
            for sum_s, accuracy in ((1.5, 0.5), (4.0, 0.6)):
                told = {"total_time_seconds": sum_s, "val_acc": accuracy, "tta_val_acc": None}
                self.utils.print_training_details(told, is_final_entry=False)
            told = {"total_time_seconds": 9.0, "val_acc": 0.6, "tta_val_acc": 0.75}
            self.utils.print_training_details(told, is_final_entry=True)


def test_airbench_gets_the_same_images_and_its_own_clock_is_read(tmp_path, monkeypatch):
    stand_in = StandInBench()
    monkeypatch.setitem(sys.modules, "airbench", stand_in)
    monkeypatch.setitem(sys.modules, "airbench.utils", stand_in.utils)
    monkeypatch.delitem(sys.modules, "tools.benchmarks.device.cifar_airbench", raising=False)
    monkeypatch.chdir(tmp_path)  # it goes elsewhere: come back
    from tools.benchmarks.device.cifar_airbench import Airbench

    data = write_cifar10(tmp_path / "cifar")
    job = CifarJob("airbench", str(data), str(tmp_path / "there"), str(tmp_path), 2, 1.0, "cuda", [])
    with pytest.raises(FeedrateError, match="on a CUDA GPU only"):
        Airbench(replace(job, device="cpu"))
    side = Airbench(job)
    train_split, test_split, options = side._loader
    assert options == {"train": True, "batch_size": 4, "aug": {"flip": True}, "altflip": True}
    for split, content in (("train", train_split), ("val", test_split)):
        records = open_records(data, split)
        assert content["images"].dtype == torch.uint8 and content["images"].shape == (len(records), 32, 32, 3)
        assert np.array_equal(content["images"][5].numpy().ravel(), records.read(5).ravel())
        assert content["labels"].tolist() == records.labels.tolist() and content["classes"] == list(records.classes)
        records.close()
    side.warm_up()
    told = side.run(7)
    assert told == CifarRun([1.5, 2.5], [0.5, 0.6], 0.75)
    assert stand_in.asked[0] == "warm-up" and stand_in.asked[-1] == (2, 7, 7)


# GPU utilisation


DMON = """# gpu     sm    mem    enc    dec    jpg    ofa     fb   bar1   ccpm
# Idx      %      %      %      %      %      %     MB     MB     MB
    0     97     45      0      0      0      0   3072      5      0
    1     11      1      0      0      0      0    100      5      0
    0      -      -      0      0      0      0      -      5      0
    0     99     45      0      0      0      0   3072      5      0
"""


def test_dmon_is_read_by_its_heading():
    columns = []
    samples = [utilisation.parsed(line, columns) for line in DMON.splitlines()]
    assert [sample for sample in samples if sample] == [{"sm": 97.0, "fb": 3072.0}, {"sm": 99.0, "fb": 3072.0}]


def test_a_run_is_watched_by_both(tmp_path, monkeypatch):
    smi = tmp_path / "smi"
    smi.write_text(f"#!/bin/sh\nwhile true; do cat <<'END'\n{DMON}END\nsleep 0.05\ndone\n")
    smi.chmod(0o755)
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 8, "bee": 8}})
    monkeypatch.setattr(utilisation, "CASES", {"busy": utilisation.CASES["busy"]})
    monkeypatch.setattr(utilisation, "_EPOCHS", 40)  # seconds between the first and the last, however busy the machine
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "utilisation.json"), "--source", str(source)]
    utilisation.main(["--device", "cpu", "--smi", str(smi), *places])
    (one,) = json.loads((tmp_path / "utilisation.json").read_text())["cases"].values()
    assert one["smi_share"] == pytest.approx(0.98, abs=0.011) and one["smi_memory_bytes"] == 3072 * 1_048_576
    assert one["share"] is None and one["memory_bytes"] is None and len(one["images_per_s"]) == 39  # no GPU: not seen
    assert "ours n/a, nvidia-smi 98" in found.utilisation(tmp_path)[0].figure
    smi.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(SystemExit, match="said nothing while these ran: busy"):
        utilisation.main(["--device", "cpu", "--smi", str(smi), *places])


def test_nvidia_smi_counts_from_the_end_of_the_first_epoch_to_that_of_the_last(tmp_path, monkeypatch):
    used = {"gpu_share": 0.9, "gpu_memory_bytes": 1}
    line = json.dumps({"kind": "epoch", "resources": used, "images_per_s": 1.0})
    folder = tmp_path / "runs" / "busy"
    code = "import sys, time, pathlib\nfolder = pathlib.Path(sys.argv[1])\nfolder.mkdir(parents=True)\n"
    code += f"for _ in range(3):\n  time.sleep(5)\n  open(folder / 'metrics.jsonl', 'a').write({line!r} + '\\n')\n"
    code += "time.sleep(10)"  # weights are written
    begin = utilisation.subprocess.Popen
    monkeypatch.setattr(utilisation.subprocess, "Popen", lambda words: begin([sys.executable, "-c", code, str(folder)]))
    chosen = types.SimpleNamespace(work=tmp_path, device="cpu")
    started_s = time.monotonic()
    begun_s, ended_s, records = utilisation._train("busy", {}, chosen)
    assert len(records) == 2 and ended_s - begun_s > 5
    assert time.monotonic() - ended_s > 5 and begun_s - started_s > 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["ceilings", "end-to-end", "cifar-speed", "profiler-overhead", "train"])
def test_a_gpu_that_is_asked_for_and_not_there_is_said(name, tmp_path, capsys):
    places = ["--report", str(tmp_path), "--work", str(tmp_path / "work")]
    assert command().main([name, "--device", "cuda", *places]) == 2
    assert capsys.readouterr().err == "error: --device is cuda and torch sees no GPU here: use --device cpu\n"
