"""What a run tells of its time while it trains and at its end, as real runs."""

import dataclasses
import json
import re
import signal
from pathlib import Path

import pytest
from commands import run, short_options, torchrun
from short_runs import ONE_RANK, outcome, run_to_end, short_config

from engine import data
from engine.build import build_run
from engine.loop import train
from engine.profiler.data_bound import NUM_INTERVALS, DataBound, DataBoundWatch
from engine.profiler.step_clock import NoClock
from engine.profiler.time_book import PARTS
from engine.reporting.display import Display
from engine.reporting.run_folder import CLOCK_FIELDS
from engine.safeguards.interrupt import StopRequest
from loaders.stage_times import Delay, StageTimes

_OF_THE_CLOCK = ("images_per_s", "data_wait_share")
SLOW_RANK = str(Path(__file__).with_name("slow_rank_program.py"))


def records(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def trained(config):
    """Train, and return what was said."""
    said = []
    display = Display(is_main=False)
    display.say = said.append
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, display, stop) as built:
            assert train(built)
    finally:
        stop.restore()
    return said


def test_the_bar_is_told_what_is_logged_which_is_of_all_ranks(image_folder, tmp_path):
    told = []
    display = Display(is_main=False)
    display.step = told.append
    run_to_end(short_config(image_folder, tmp_path), display)
    logged = records(tmp_path / "short", "step")
    assert logged and [record for record in told if record is not None] == [
        {name: step[name] for name in ("kind", "epoch", "step", "loss", "learning_rate", *_OF_THE_CLOCK)}
        for step in logged
    ]


def test_an_epoch_that_is_taken_up_after_its_last_batch_has_no_figures_of_training(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as run:
            _asks_to_stop_at_its_start(run.data.evaluation, stop)
            assert not train(run)
            assert (run.progress.epoch, run.progress.batch) == (0, 5)
    finally:
        stop.restore()
    display = Display(is_main=True)
    with display.console.capture() as printed:
        run_to_end(config, display)
    record = records(tmp_path / "short", "epoch")[0]
    assert record["num_images"] == 35
    names = ("images_per_s", "steady_images_per_s", "data_wait_share", "first_batch_s", "first_step_s")
    assert [record[name] for name in names] == [None] * 5
    assert record["time_of_ranks_s"] == [None]
    assert record["resources"]["cpu_share"] is None and record["resources"]["memory_bytes"] > 0
    line = next(line for line in printed.get().splitlines() if line.startswith("epoch 1/2"))
    assert re.search(r"top-5 [\d.]+%  RAM [\d.]+ GB$", line), line


def _asks_to_stop_at_its_start(evaluation, stop):
    """As a signal does that comes once an epoch's last step is done."""
    loader = evaluation._loader
    really = loader.epoch

    def epoch(index, start=0):
        stop.signal = signal.SIGTERM
        yield from really(index, start)

    loader.epoch = epoch


def test_every_epoch_and_the_end_of_a_run_say_where_the_time_went(image_folder, tmp_path):
    display = Display(is_main=True)
    with display.console.capture() as printed:
        run_to_end(short_config(image_folder, tmp_path), display)
    for record in records(tmp_path / "short", "epoch"):
        shares = record["time_shares"]
        assert tuple(shares) == PARTS
        assert sum(share for share in shares.values() if share is not None) == pytest.approx(1)
        for part in ("read", "decode", "augment", "collate", "forward", "backward", "evaluation", "checkpoint"):
            assert shares[part] > 0, part
        assert shares["sync"] is None and shares["pin"] is None and shares["data-wait"] is None
        waited = sum(shares[part] or 0 for part in PARTS[: PARTS.index("data-wait")])
        assert waited * record["time_wall_s"] == pytest.approx(record["data_wait_share"] * record["seconds"], rel=0.05)
        assert len(record["time_of_ranks_s"]) == 1
    for step in records(tmp_path / "short", "step"):
        assert step["images_per_s"] > 0 and 0 <= step["data_wait_share"] <= 1
    text = printed.get()
    head = text.index("where the time went")
    assert text.index("epoch 2/2") < head
    groups = re.findall(r"^  (data-wait|step|around it) ([\d.]+)%", text[head:], re.MULTILINE)
    assert [name for name, _ in groups] == ["data-wait", "step", "around it"]
    assert sum(float(share) for _, share in groups) == pytest.approx(100)


def test_what_clocks_read_is_named_as_such(image_folder, tmp_path):
    run_to_end(short_config(image_folder, tmp_path, "synthetic"))
    (first, _) = records(tmp_path / "short", "epoch")
    assert {name for name in first if name.startswith("time_")} <= set(CLOCK_FIELDS)


def test_a_finished_run_that_is_started_again_shows_no_times(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, "synthetic")
    run_to_end(config)
    display = Display(is_main=True)
    with display.console.capture() as printed:
        run_to_end(config, display)
    assert "where the time went" not in printed.get()


def test_a_run_whose_decoding_is_slow_is_warned_of_once_and_told_what_to_try(image_folder, tmp_path, monkeypatch):
    config = short_config(image_folder, tmp_path)
    log_every = dataclasses.replace(config.run, log_every_steps=1, checkpoint_every_steps=0)
    config = dataclasses.replace(config, run=log_every, epochs=4)
    slow = {"decode": Delay("sleep", 0.2)}
    monkeypatch.setattr(data, "StageTimes", lambda num_writers: StageTimes(num_writers, slow))
    said = trained(config)
    warnings = [text for text in said if "data-bound" in text]
    assert len(warnings) == 1
    assert "loader 'turbo'" in warnings[0] and "decode takes most" in warnings[0] and "try" in warnings[0]
    # while it trained: not at its end
    assert said.index(warnings[0]) < next(i for i, text in enumerate(said) if text.startswith("epoch 4/4"))
    assert NUM_INTERVALS < 5


@pytest.mark.parametrize(("loader", "is_proposed"), [("torchvision", False), ("turbo", True)])
def test_a_run_is_told_of_no_way_to_resize_that_its_loader_does_not_know(
    loader, is_proposed, image_folder, tmp_path, monkeypatch
):
    found = iter([DataBound(0.5, {"augment": 1.0}, 1.0)])
    monkeypatch.setattr(DataBoundWatch, "note", lambda watch, recent, loader_s: next(found, None))
    config = short_config(image_folder, tmp_path, loader, epochs=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resize="exact"))
    (warned,) = [text for text in trained(config) if "data-bound" in text]
    assert ("--data.resize area" in warned) is is_proposed


def test_a_run_that_does_not_wait_is_not_warned_of(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, "synthetic")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, log_every_steps=1))
    assert not [text for text in trained(config) if "data-bound" in text]


def test_where_nothing_is_timed_that_is_said_and_the_bits_are_the_same(image_folder, tmp_path, monkeypatch):
    config = short_config(image_folder, tmp_path / "timed")
    expected = run_to_end(config)
    monkeypatch.setattr(data, "StageTimes", lambda num_writers: None)
    bare = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "bare")))
    display, stop = Display(is_main=True), StopRequest()
    with display.console.capture() as printed:
        try:
            with build_run(bare, ONE_RANK, display, stop) as built:
                built.step.clock = NoClock()
                assert train(built)
        finally:
            stop.restore()
    assert "stages of loading: n/a" in printed.get() and "stages of the step: n/a" in printed.get()
    assert outcome(tmp_path / "bare" / "short") == expected
    shares = records(tmp_path / "bare" / "short", "epoch")[0]["time_shares"]
    assert shares["decode"] is None and shares["forward"] is None and shares["data-wait"] > 0


def test_two_ranks_tell_what_each_needs_by_itself_and_the_slow_one_is_named(image_folder, tmp_path):
    options = short_options(image_folder, tmp_path, epochs=1, **{"data.batch-size": 12})
    result = run(torchrun(2, SLOW_RANK, *options))
    assert result.returncode == 0, result.stderr
    (record,) = records(tmp_path / "ddp", "epoch")
    fast_s, slow_s = record["time_of_ranks_s"]
    assert slow_s > 3 * 3 and fast_s > 0, "3 steps"
    assert re.search(
        r"rank 1 keeps the others waiting: .* took it [\d.]+ s by itself, the others [\d.]+ s", result.stdout
    )
    assert "rank 0\n" in result.stdout and "backward + sync" in result.stdout
