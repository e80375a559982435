"""tools/bench.py accuracy: what is read from finished runs, what is said of them, and two small real runs."""

import dataclasses
import fcntl
import json
import shutil

import numpy as np
import pytest
import tomli_w
from pictures import write_image_folder
from safetensors.numpy import save_file
from test_bench import MACHINE, command

from engine.command_line import parse_config
from engine.safeguards.run_lock import LOCK_NAME
from loaders.errors import FeedrateError
from tools.benchmarks.accuracy import curves, runs
from tools.benchmarks.accuracy import page as accuracy_page
from tools.benchmarks.accuracy import result as accuracy_result
from tools.benchmarks.accuracy.page import page, verdict
from tools.benchmarks.accuracy.result import OverSeeds, agreement, result
from tools.benchmarks.accuracy.runs import AccuracySettings, Trained, differences, read_run, weights_sha256
from tools.benchmarks.process import CommandFailed

PRESET = """
epochs = 2
[data]
batch_size = 6
eval_batch_size_per_rank = 8
size_px = 16
eval_size_px = 16
eval_resize_px = 18
[model]
name = "cifar_resnet20"
[optim]
learning_rate = 0.05
[execution]
device = "cpu"
"""
ENVIRONMENT = {
    "python": "3",
    "platform": "Linux",
    "versions": {"torch": "2", "ffcv": "not installed"},
    "commit": "abc",
    "cpus": 2,
    "gpus": [],
}
USED = {"cpu_share": 0.5, "memory_bytes": 2e9, "gpu_share": None, "gpu_memory_bytes": None}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "tiny.toml").write_text(PRESET)
    return AccuracySettings(
        str(tmp_path / "tiny.toml"), tmp_path / "images", ("turbo", "torchvision"), (0, 1), tmp_path / "runs", 1, 1, 600
    )


def record(epoch, top1, **changes):
    """An epoch as a run logs it."""
    return {
        "kind": "epoch",
        "epoch": epoch,
        "train_loss": 1.0 - top1,
        "ids_sha256": f"ids of {epoch}",
        "num_images": 36,
        "num_evaluated": 8,
        "eval_loss": 1.0,
        "eval_top1": top1,
        "eval_top5": 1.0,
        "images_per_s": 100.0,
        "data_wait_share": 0.1,
        "seconds": 30.0,
        "resources": USED,
        **changes,
    }


def trained(loader, seed, top1, commit="abc", **changes):
    """A run of two epochs with this top-1 at its end."""
    epochs = [record(0, 0.1), record(1, top1, **changes)]
    config = parse_config(["--model.name", "cifar_resnet20", "--data.path", "somewhere"])
    environment = {**ENVIRONMENT, "commit": commit}
    return Trained(f"tiny-{loader}-{seed}", loader, seed, config, epochs, environment, None, "weights")


def write_run(settings, loader, seed, records):
    """A run's folder as the engine leaves it."""
    folder = settings.folder / settings.name(loader, seed)
    folder.mkdir(parents=True)
    config = parse_config(settings.words(loader, seed))
    (folder / "config.toml").write_text(tomli_w.dumps(dataclasses.asdict(config)))
    (folder / "env.json").write_text(json.dumps(ENVIRONMENT))
    lines = [{"kind": "step", "epoch": 0, "step": 1}, *records]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_is_finished_when_all_its_epochs_are_logged_each_once(settings):
    assert read_run(settings, "turbo", 0) is None
    write_run(settings, "turbo", 0, [record(0, 0.5), record(1, 0.75)])
    found = read_run(settings, "turbo", 0)
    assert [line["eval_top1"] for line in found.epochs] == [0.5, 0.75]
    assert found.environment["commit"] == "abc" and found.load_1_min is None and found.weights_sha256 == ""
    for number, records in enumerate(([], [record(0, 0.5)], [record(1, 0.5)], [record(0, 0.5), record(0, 0.5)]), 1):
        write_run(settings, "turbo", number, records)
        assert read_run(settings, "turbo", number) is None


def test_a_line_that_is_only_half_written_does_not_count(settings):
    folder = write_run(settings, "turbo", 0, [record(0, 0.5), record(1, 0.75)])
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[:-9])
    assert read_run(settings, "turbo", 0) is None


def test_a_run_with_other_settings_is_refused_by_their_names(settings):
    write_run(settings, "turbo", 0, [record(0, 0.5), record(1, 0.75)])
    for change, told in [({"num_threads": 3}, "execution.threads 1 where 3"), ({"num_workers": 2}, "data.workers 1")]:
        with pytest.raises(FeedrateError, match=told):
            read_run(dataclasses.replace(settings, **change), "turbo", 0)


def test_settings_of_logging_and_the_way_a_path_is_put_are_no_difference():
    one = parse_config(["--data.path", "data/some/../x", "--run.folder", "a", "--run.log-every-steps", "3"])
    two = parse_config(["--data.path", "data/x"])
    assert differences(one, two) == []
    assert differences(one, parse_config(["--data.path", "data/y"]))[0].startswith("data.path ")
    changed = differences(parse_config(["--optim.momentum", "0.8"]), parse_config([]))
    assert changed == ["optim.momentum 0.8 where 0.9 is asked for"]


def test_the_hash_of_weights_is_of_their_bits_and_names_alone(tmp_path):
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, np.float32)}
    other = {"a": weights["a"].copy(), "b": np.array([0.0, 1e-30], np.float32)}
    digests = []
    for name, (content, about) in {"1": (weights, "x"), "2": (weights, "y"), "3": (other, "x")}.items():
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / "weights.safetensors", {"about": about})
        digests.append(weights_sha256(tmp_path / name))
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 64


def test_mean_and_deviation_are_the_samples():
    assert OverSeeds.of([2.0, 4.0, 9.0]) == OverSeeds(5.0, pytest.approx(13**0.5), 2.0, 9.0, 3)
    assert OverSeeds.of([0.5]) == OverSeeds(0.5, None, 0.5, 0.5, 1)


def test_agreement_sets_the_difference_of_loaders_beside_that_of_seeds():
    found = agreement(
        {
            "turbo": [trained("turbo", 0, 0.50), trained("turbo", 1, 0.60), trained("turbo", 2, 0.55)],
            "dali": [trained("dali", 0, 0.53), trained("dali", 1, 0.58), trained("dali", 2, 0.57)],
        }
    )
    assert found["largest_of_a_seed"] == pytest.approx(0.03)
    assert found["largest_of_means"] == pytest.approx(0.01)  # 0.55 and 0.56
    assert found["largest_over_seeds"] == pytest.approx(0.10)
    assert found["deviation"] == pytest.approx(((0.0025 + 0.0007) / 2) ** 0.5)
    assert found["is_within"] is True and "means differ by no more than seeds do" in verdict(found)
    apart = agreement(
        {
            "turbo": [trained("turbo", 0, 0.50), trained("turbo", 1, 0.51)],
            "dali": [trained("dali", 0, 0.70), trained("dali", 1, 0.71)],
        }
    )
    assert apart["is_within"] is False and "means differ by **more** than seeds do" in verdict(apart)


def test_means_are_compared_over_the_seeds_that_all_loaders_have():
    found = agreement(
        {"turbo": [trained("turbo", 0, 0.5), trained("turbo", 1, 0.9)], "dali": [trained("dali", 0, 0.5)]}
    )
    assert found["largest_of_means"] == 0 and found["largest_of_a_seed"] == 0


def test_one_loader_or_one_seed_is_not_taken_for_agreement():
    alone = agreement({"turbo": [trained("turbo", 0, 0.5), trained("turbo", 1, 0.6)]})
    assert alone["is_within"] is None and "nothing to compare" in verdict(alone)
    once = agreement({"turbo": [trained("turbo", 0, 0.5)], "dali": [trained("dali", 0, 0.5)]})
    assert once["is_within"] is None and "one seed only" in verdict(once)


def test_equal_to_the_bit_means_every_figure_no_clock_had_a_part_in(settings):
    same = [trained("turbo", 0, 0.5), trained("ffcv", 0, 0.5, images_per_s=7.0, seconds=1.0)]
    other = trained("dali", 0, 0.5, eval_loss=1.0 + 1e-15)
    found = result(settings, [*same, other], {})["seeds"][0]
    assert found["same_ids"] == [["turbo", "ffcv", "dali"]]
    assert found["same_results"] == [["turbo", "ffcv"], ["dali"]] and found["difference"] == 0
    weights = dataclasses.replace(same[1], weights_sha256="others")
    ids = trained("dali", 0, 0.5, ids_sha256="others")
    found = result(settings, [same[0], weights, ids], {})["seeds"][0]
    assert found["same_results"] == [["turbo"], ["ffcv"], ["dali"]] and found["same_ids"] == [
        ["turbo", "ffcv"],
        ["dali"],
    ]


def test_an_epoch_that_trained_nothing_since_it_was_taken_up_after_its_last_batch_counts_for_no_speed(settings):
    used = {**USED, "cpu_share": None}
    made = [trained("turbo", 0, 0.5, images_per_s=None, data_wait_share=None, resources=used)]
    written = page({"date": "today", "machine": MACHINE, **result(settings, made, {})}, "x.png")
    assert "| 100 | 10.0% | 1.0 min | n/a | 2,000 MB |" in written


def test_the_page_names_the_commits_of_the_runs_and_not_the_present_one(settings):
    made = [trained("turbo", 0, 0.5), trained("turbo", 1, 0.6), trained("dali", 0, 0.5, eval_loss=2.0)]
    machine = {**MACHINE, "commit": "present"}
    written = page({"date": "today", "machine": machine, **result(settings, made, {"ffcv": "not there"})}, "x.png")
    assert "All runs were made on commit `abc`." in written and "written by commit `present`" in written
    assert "With Python 3, torch 2, ffcv not installed; 2 cores, no GPU." in written
    assert "`ffcv` was skipped: not there" in written and "![top-1 and loss over epochs](x.png)" in written
    assert "| 0 | `turbo` | 50.00% | 100.00% | 0.500000 | 100 | 10.0% | 1.0 min | 50% | 2,000 MB |" in written
    assert "| `turbo` | 2 | 55.00% ± 7.07% | 50.00% … 60.00% | 100.00% ± 0.00% | 0.4500 ± 0.0707 |" in written
    assert "| 0 | 0.00 points | all | none |" in written
    other = result(settings, [*made, trained("dali", 1, 0.6, commit="def")], {})
    written = page({"date": "today", "machine": machine, **other}, "x.png")
    assert (
        "**The runs were made on different commits**: `abc` (tiny-turbo-0, tiny-turbo-1, tiny-dali-0); `def`" in written
    )
    assert "All runs were made" not in written


def test_the_picture_has_a_curve_a_run_a_colour_a_loader_and_a_line_a_seed(settings):
    made = [trained(loader, seed, 0.5 + seed / 10) for loader in ("turbo", "dali") for seed in (0, 1)]
    left, right, *_ = curves.figure_of(result(settings, made, {})).axes
    lines = left.get_lines()
    assert [list(line.get_ydata()) for line in lines] == 2 * [[10, 50], [10, 60]]
    assert [list(line.get_xdata()) for line in lines] == 4 * [[1, 2]]
    assert [list(line.get_ydata()) for line in right.get_lines()] == 2 * [[0.9, 0.5], [0.9, 0.4]]
    one, two, three, _ = lines
    assert one.get_color() == two.get_color() != three.get_color() and one.get_linestyle() != two.get_linestyle()


def test_a_loader_that_is_not_installed_is_skipped_unless_its_runs_are_there(settings, monkeypatch):
    def choose(name):
        raise FeedrateError(f"loader '{name}' needs something")

    monkeypatch.setattr(runs, "choose_loader", choose)
    told = []
    with pytest.raises(FeedrateError, match="none of the loaders can run here: loader 'turbo' needs something"):
        runs.train_all(settings, told.append)
    for seed in (0, 1):
        write_run(settings, "turbo", seed, [record(0, 0.5), record(1, 0.75)])
    found, skipped = runs.train_all(settings, told.append)
    assert [run.name for run in found] == ["tiny-turbo-0", "tiny-turbo-1"]
    assert skipped == {"torchvision": "loader 'torchvision' needs something"}
    assert not (settings.folder / ".lock").exists()  # nothing was to be trained, so nothing was written


def test_a_loader_whose_run_fails_costs_the_others_nothing(settings, monkeypatch):
    tried = []

    def train(settings, loader, seed, say):
        tried.append((loader, seed))
        if loader == "turbo" and seed == 1:
            raise CommandFailed(["python", "engine/train.py"], "ended with status 1: out of memory", False)
        write_run(settings, loader, seed, [record(0, 0.5), record(1, 0.75)])
        return read_run(settings, loader, seed)

    monkeypatch.setattr(runs, "_train", train)
    asked = dataclasses.replace(settings, seeds=(0, 1, 2))
    found, skipped = runs.train_all(asked, print)
    assert tried == [("turbo", 0), ("torchvision", 0), ("turbo", 1), ("torchvision", 1), ("torchvision", 2)]
    assert skipped == {"turbo": "its run with seed 1 ended with status 1: out of memory"}
    names = ["tiny-turbo-0", *(f"tiny-torchvision-{seed}" for seed in (0, 1, 2))]
    assert [run.name for run in found] == names
    tried.clear()
    again, _ = runs.train_all(dataclasses.replace(asked, finished_only=True), print)
    assert [run.name for run in again] == names and not tried
    with pytest.raises(FeedrateError, match="is finished: leave --finished-only out"):
        runs.train_all(dataclasses.replace(asked, folder=settings.folder / "other", finished_only=True), print)


def test_a_run_that_another_process_is_at_is_left_alone(settings):
    """By the run itself, which knows of trainings that were not begun from here as well."""
    folder = settings.folder / settings.name("turbo", 0)
    folder.mkdir(parents=True)
    with open(folder / LOCK_NAME, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FeedrateError, match=f"another process is training in {folder}: wait until it is done"):
            runs.train_all(dataclasses.replace(settings, loaders=("turbo",), seeds=(0,)), print)
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]


def test_two_loaders_are_trained_gone_on_with_and_then_only_read(settings, tmp_path, capfd):
    write_image_folder(tmp_path / "images", {split: {"ant": 9, "bee": 9} for split in ("train", "val")})
    words = ["accuracy", "--config", settings.config, "--data", str(settings.data), "--loaders", "turbo,torchvision"]
    words += ["--seeds", "0", "--folder", str(settings.folder), "--threads", "1", "--workers", "1"]
    words += ["--report", str(tmp_path)]
    assert command().main(words) == 0, capfd.readouterr().err
    (written,) = tmp_path.glob("accuracy_tiny_*.json")
    first = json.loads(written.read_text())
    by_loader = {run["loader"]: run for run in first["runs"]}
    assert list(by_loader) == ["turbo", "torchvision"] and first["settings"]["num_epochs"] == 2
    assert first["seeds"]["0"]["same_ids"] == [["turbo", "torchvision"]]
    for run in first["runs"]:
        assert len(run["epochs"]) == 2 and run["load_1_min"] >= 0 and len(run["weights_sha256"]) == 64
        assert run["eval_top1"] == run["epochs"][1]["eval_top1"] and run["images_per_s"] > 0
    assert written.with_suffix(".png").stat().st_size > 5000
    # one run is cut back to its first epoch, the other is said to be of another commit
    folder = settings.folder / "tiny-turbo-0"
    kept = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if json.loads(line)["epoch"] == 0]
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    for path in sorted((folder / "checkpoints").iterdir()):
        if path.stem != "step-00000003":
            path.unlink()
    env = settings.folder / "tiny-torchvision-0" / "env.json"
    env.write_text(json.dumps({**json.loads(env.read_text()), "commit": "of-yesterday"}))
    before = {path: path.stat().st_mtime_ns for path in env.parent.rglob("*")}
    assert command().main(words) == 2  # the report is there already, and nothing is spent
    assert "give --overwrite" in capfd.readouterr().err
    assert command().main([*words, "--overwrite"]) == 0
    told = capfd.readouterr().out
    assert "1 of 2 runs are finished" in told and "training tiny-turbo-0" in told
    assert {path: path.stat().st_mtime_ns for path in env.parent.rglob("*")} == before
    second = json.loads(written.read_text())
    assert set(second["commits"]) == {"of-yesterday", by_loader["turbo"]["environment"]["commit"]}
    assert "made on different commits" in written.with_suffix(".md").read_text()
    for again in second["runs"]:  # gone on with to the same bits
        assert again["epochs"] == by_loader[again["loader"]]["epochs"]
        assert again["weights_sha256"] == by_loader[again["loader"]]["weights_sha256"]
    shutil.rmtree(settings.folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --config"),
        (["--config", "imagenette_46"], "no preset 'imagenette_46': did you mean imagenette_64?"),
        (["--config", "demo", "--loaders", "turbo,fcv"], "--loaders: 'fcv' is unknown: did you mean ffcv?"),
        (["--config", "demo", "--seeds", "0,x"], "'x' is not a whole number of 0 or more"),
        (["--config", "demo", "--seed", "0"], "accuracy has no option '--seed': did you mean --seeds?"),
        (["--config", "demo", "--threads", "0"], "'0' is not a whole number of 1 or more"),
        (["--config", "demo", "--report", "no/such"], "no/such is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, tmp_path, capfd):
    options = [] if "--report" in words else ["--report", str(tmp_path)]
    assert command().main(["accuracy", *words, *options, "--folder", str(tmp_path / "runs")]) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_runs_whose_epochs_have_no_speed_are_shown_without_one():
    """Each stopped in its evaluation and taken up: nothing was trained since."""
    of_none = {"images_per_s": None, "data_wait_share": None}
    run = trained("turbo", 0, 0.5)
    run = dataclasses.replace(run, epochs=[{**epoch, **of_none} for epoch in run.epochs])
    told = accuracy_result._run(run)
    assert told["images_per_s"] is None and told["data_wait_share"] is None
    assert "| n/a | n/a |" in "\n".join(accuracy_page._runs([told]))
