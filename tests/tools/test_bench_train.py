"""tools/bench.py train: how a window is timed, what is made of the figures, and a small real run."""

import json
from dataclasses import replace

import pytest
import torch
from pictures import write_image_folder
from test_bench import MACHINE, command

from loaders.errors import FeedrateError
from tools.benchmarks.process import Ran
from tools.benchmarks.rounds import Rounds
from tools.benchmarks.training import bars, compare, timm_loop, torchvision_loop
from tools.benchmarks.training.compare import TrainSettings, result
from tools.benchmarks.training.job import Job
from tools.benchmarks.training.ours import config_of
from tools.benchmarks.training.page import page, verdicts
from tools.benchmarks.training.sides import CASES, FEEDS, OURS, SIDES
from tools.benchmarks.training.window import Window, WindowOver

CPU = torch.device("cpu")
JOB = Job(OURS, "images/train", "packed", "run", 32, 4, "bf16", False, "cpu", 1, 2, 1.0, 0.0)
SETTINGS = TrainSettings(("64-fp32",), tuple(SIDES), None, 1, 3, 2, 2, 0, "cpu", True, 1.0, 60.0)


class Clock:
    """Seconds that pass as batches are trained on."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def train(window, clock, epochs, s_per_batch):
    """A loop that takes so long for each batch; the numbers of images it was given until the window ended it."""
    given = []
    with pytest.raises(WindowOver):
        for epoch in epochs:
            for size in window.over(epoch, lambda size: size):
                given.append(size)
                clock.now_s += s_per_batch
    return given


def test_a_window_opens_when_the_loop_is_warm_and_counts_whole_steps():
    clock = Clock()
    given = train(Window(0.5, 1.0, 1, CPU, clock), clock, [[4] * 100], 0.3)
    # two batches choose kernels, two more make it warm; four more make a second full
    assert len(given) == 8
    clock = Clock()
    window = Window(0.0, 1.0, 1, CPU, clock)
    train(window, clock, [[4] * 100], 0.3)
    assert window.figures == {"num_images": 16, "wall_s": pytest.approx(1.2), "s_per_image": pytest.approx(0.075)}


def test_a_window_goes_on_over_epochs_with_ragged_ends_and_ends_with_a_group():
    clock = Clock()
    window = Window(0.0, 1.0, 3, CPU, clock)
    given = train(window, clock, [[4, 4, 1]] * 100, 0.3)
    # batches 1 to 3 are before it; 4 would do, the next multiple of 3 is 6
    assert len(given) == 9 and window.figures["num_images"] == 18
    assert window.figures["wall_s"] == pytest.approx(1.8)


def test_waiting_for_batches_is_within_the_window():
    clock = Clock()

    def waited_for():
        while True:
            clock.now_s += 0.5
            yield 4

    window = Window(0.0, 2.0, 1, CPU, clock)
    train(window, clock, [waited_for()], 0.5)
    assert window.figures["wall_s"] == pytest.approx(2.0) and window.figures["num_images"] == 8


def test_our_side_is_configured_as_the_job_says():
    config = config_of(JOB, "images")
    assert (config.loader, config.data.path, config.data.batch_size, config.data.size_px) == ("turbo", "packed", 4, 32)
    assert (config.execution.precision, config.execution.channels_last, config.execution.threads) == ("bf16", False, 1)
    assert config.optim.name == "sgd" and config.optim.schedule == "constant" and config.data.workers == 2
    assert config.model.name == "resnet18" and config_of(JOB, "resident").loader == "synthetic"
    assert config_of(replace(JOB, channels_last=True), "images").execution.channels_last


def side(step_s, images_s, size=11):
    """What one run tells."""
    figures = {"resident": {"s_per_image": step_s}, "images": {"s_per_image": images_s}}
    return {**figures, "num_parameters": size, "peak_rss_bytes": 1e9}


def rounds_by_hand():
    """Three rounds: in the step ours is faster than torchvision, end to end slower; timm is missing."""
    done = {}
    for number, (ours, theirs) in enumerate([(1.0, 2.0), (2.0, 2.0), (1.0, 3.0)], 1):
        sides = {OURS: side(ours / 1000, 0.004), "torchvision": side(theirs / 1000, 0.003)}
        sides |= {"timm": {"skipped": "no module: install it"}} if number == 1 else {}
        done[f"64-fp32/{number}"] = {"load_1_min": 0.1 * number, "sides": sides}
    return done


def measured_by_hand():
    sides = {name: {"title": known.title, "version": "1"} for name, known in SIDES.items()}
    settings = {"model": "resnet18", "layout": "channels-last", "threads": 2, "workers": 2, "images": "photos × 1"}
    settings |= {"rounds": 3, "seconds": 1.0, "device": "cpu", "packages": {"timm": "1"}, "in_one_go": True}
    machine = {**MACHINE, "versions": {**MACHINE["versions"], "torch": "9"}}
    case = result("64-fp32", SETTINGS, rounds_by_hand())
    return {"date": "today", "machine": machine, "settings": settings, "sides": sides, "cases": {"64-fp32": case}}


def test_ratios_are_of_each_round_and_who_was_missing_stays_listed():
    case = measured_by_hand()["cases"]["64-fp32"]
    # the medians alone would give 2 too; highest and lowest tell
    assert case["feeds"]["resident"]["ratios"] == {"torchvision": {"median": 2, "lowest": 1, "highest": 3, "n": 3}}
    assert case["feeds"]["images"]["ratios"]["torchvision"]["median"] == pytest.approx(0.75)
    assert case["feeds"]["resident"]["sides"][OURS]["rounds"] == [0.001, 0.002, 0.001]
    assert case["skipped"] == {"timm": "no module: install it"} and case["load_1_min"] == [0.1, 0.2, 0.1 * 3]


def test_sides_that_train_different_models_are_not_compared():
    done = rounds_by_hand()
    done["64-fp32/1"]["sides"]["torchvision"]["num_parameters"] = 12
    with pytest.raises(FeedrateError, match=r"different models \(parameters: feedrate 11, torchvision 12\)"):
        result("64-fp32", SETTINGS, done)


def test_the_page_says_where_ours_is_slower_and_what_the_others_are():
    measured = measured_by_hand()
    written = page(measured, "x.png")
    title = "64 px, batches of 64, fp32"
    assert f"| {title} | torchvision | 500.0 (333.3 … 500.0) | 2.00× (1.00 … 3.00) | 0.30 |" in written
    assert f"| {title} | torchvision | 333.3 (333.3 … 333.3) | 0.75× (0.75 … 0.75) | 0.30 |" in written
    assert "torchvision: ours trains 2.00 times as fast; nowhere slower." in written
    assert "torchvision: ours trains 0.75 times as fast; **slower in every round for 64-fp32**." in written
    assert written.count("rendition of the training loop of") == 2
    assert "`timm` was skipped: no module: install it" in written and "torch 9, on the CPU" in written
    ratios = measured["cases"]["64-fp32"]["feeds"]["resident"]["ratios"]
    ratios["torchvision"] = {"median": 0.98, "lowest": 0.9, "highest": 1.01, "n": 3}
    assert "0.98 times as fast; below 1 within the spread for 64-fp32; nowhere slower." in next(verdicts(measured))


def test_the_picture_has_a_bar_a_side_and_the_ratio_beside_it():
    step, images = bars.figure_of(measured_by_hand()).axes
    assert [bar.get_width() for bar in step.patches] == pytest.approx([1000, 500])
    assert [text.get_text().strip() for text in images.texts] == ["250", "333   ours ÷ it 0.75×"]
    assert step.patches[0].get_facecolor() != step.patches[1].get_facecolor()


def test_a_side_that_is_missing_is_told_with_what_installs_it_and_sides_take_turns(tmp_path, monkeypatch):
    asked, told = [], []

    def run(words, log, timeout_s):
        job = Job.read(words[-1])
        asked.append(job.side)
        figures = {"unavailable": "No module named 'timm'"} if job.side == "timm" else side(1.0, 1.0)
        return Ran(1.0, 1.0, json.dumps(figures) + "\n", None)

    monkeypatch.setattr(compare, "run", run)
    rounds = Rounds(tmp_path, {})
    compare._run_rounds(SETTINGS, rounds, told.append)
    assert asked == [OURS, "torchvision", "timm", "torchvision", OURS, OURS, "torchvision"]
    assert "64-fp32: timm is skipped: No module named 'timm': uv pip install timm" in told
    found = result("64-fp32", SETTINGS, Rounds(tmp_path, {}).done)
    assert found["skipped"] == {"timm": "No module named 'timm': uv pip install timm"}
    asked.clear()
    compare._run_rounds(SETTINGS, rounds, told.append)
    assert asked == [] and "3 of 3 rounds were measured before: going on after them" in told


def test_without_ours_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "run", lambda *words: Ran(1.0, 1.0, '{"unavailable": "broken"}\n', None))
    with pytest.raises(FeedrateError, match="broken"):
        compare._run_rounds(SETTINGS, Rounds(tmp_path, {}), print)


@pytest.mark.parametrize("loop", [torchvision_loop, timm_loop])
@pytest.mark.parametrize("feed", FEEDS)
def test_the_others_train_the_same_model_on_whole_batches_until_the_window_is_over(tmp_path, loop, feed):
    images = write_image_folder(tmp_path / "photos", {"train": {"ant": 4, "bee": 4}}) / "train"
    job = replace(JOB, images=str(images), batch_size=2, num_workers=1, channels_last=True)
    window, threads, tries = Window(0.0, 0.01, 1, CPU), torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        model = loop.train(job, window, feed)
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = tries
    assert window.figures["num_images"] in (2, 4, 6) and window.figures["s_per_image"] > 0
    assert model.fc.out_features == 2 and sum(weights.numel() for weights in model.parameters()) == 11_177_538
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.bn1.num_batches_tracked == 2 + window.figures["num_images"] // 2  # two before the window
    assert model.bn1.bias.detach().abs().sum() > 0  # begins at 0: the optimizer has moved it


def test_a_quick_run_writes_page_figures_and_picture(tmp_path, capfd):
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 8, "bee": 8}})
    words = ["train", "--quick", "--source", str(source), "--cases", "64-bf16", "--batch-size", "2"]
    words += ["--device", "cpu", "--sides", "feedrate,torchvision"]
    words += ["--workers", "1", "--threads", "1", "--report", str(tmp_path), "--work", str(tmp_path / "work")]
    assert command().main(words) == 0, capfd.readouterr().err
    told = capfd.readouterr().out
    assert "round 1 of 1, 64-bf16: feedrate" in told and "ours ÷ it" in told
    assert not (tmp_path / "work").exists()
    (written,) = tmp_path.glob("train_*.json")
    measured = json.loads(written.read_text())
    case = measured["cases"]["64-bf16"]
    assert case["skipped"] == {} and case["num_parameters"] == 11_177_538  # resnet18 of two classes
    for feed in FEEDS:
        assert list(case["feeds"][feed]["sides"]) == ["feedrate", "torchvision"]
        assert all(spread["median"] > 0 and spread["n"] == 1 for spread in case["feeds"][feed]["sides"].values())
        assert set(case["feeds"][feed]["ratios"]) == {"torchvision"}
    assert measured["settings"]["device"] == "cpu" and measured["settings"]["batch_sizes"] == {"64-bf16": 2}
    assert written.with_suffix(".png").stat().st_size > 5000
    assert "## Not slower?" in written.with_suffix(".md").read_text()


def test_every_case_has_a_name_that_says_it():
    for name, case in CASES.items():
        assert name == f"{case.size_px}-{case.precision}" and str(case.batch_size) in case.title


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sides", "feedrate,tim"], "'tim' is unknown: did you mean timm?"),
        (["--sides", "timm"], "--sides timm lacks feedrate, which all are compared with"),
        (["--cases", "64-fp16"], "'64-fp16' is unknown: did you mean"),
        (["--seconds", "0"], "'0' is not a number of seconds above 0"),
        (["--batch", "8"], "train has no option '--batch': did you mean --batch-size?"),
        (["--layout", "nchw"], "invalid choice: 'nchw'"),
        (["--device", "cuda"], "--device is cuda and torch sees no GPU here: use --device cpu"),
        (["--source", "no/such"], "no/such is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, tmp_path, capfd):
    if words[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert command().main(["train", *words, "--report", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1


def test_fewer_images_than_a_batch_is_said_before_anything_runs(tmp_path, capfd):
    source = write_image_folder(tmp_path / "photos", {"train": {"ant": 2}})
    words = ["train", "--quick", "--source", str(source), "--report", str(tmp_path), "--work", str(tmp_path / "work")]
    assert command().main(words) == 2
    assert "photos × 1 is 2 images, less than a batch of 64" in capfd.readouterr().err
