"""Predictions of tools/profile.py as a user has them: calibrated on packed images, tried by --apply, remembered."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY, TIMEOUT_S, python, short_options
from short_runs import ONE_RANK, short_config
from shown_profiles import bare, full, with_subject
from test_profile_command import _command

from converters.encode import Encoding
from converters.packing import PackSettings, pack
from converters.sources.records_source import RecordSamples
from engine.config import Config, DataConfig
from engine.profiler.calibration import with_path
from engine.profiler.record import Rate, WhatIf
from engine.profiler.record_json import read_profile
from engine.profiler.session import Budget
from engine.profiler.what_if import Change
from engine.sampling import training_sampling
from loaders.errors import FeedrateError
from loaders.native import library
from loaders.records import open_records
from tools.profiling import error_history, packed_sample, what_if
from tools.profiling.packed_sample import FOLDER_PREFIX, packed_samples, some_of

SHORT = ("--minutes", "0.02", "--rounds", "2")


def test_apply_tries_the_best_and_a_held_out_change_and_remembers_how_wrong_it_was(image_folder, tmp_path):
    options = short_options(image_folder, tmp_path, **{"data.workers": 1})
    result = python("tools/profile.py", *SHORT, "--apply", "--price-per-hour", "2", *options)
    assert result.returncode == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "--apply tries" in told and "2 rounds, 0.02 minutes" in told
    report = read_profile(tmp_path / "ddp" / "profile" / "report.json")
    tried = [row for row in report.what_if if row.measured is not None]
    helps = "no change that can be tried is predicted to help" not in told  # on a machine that others use none may be
    assert len(tried) == 1 + helps < len(report.what_if)
    best = max((row for row in report.what_if if row.settings), key=lambda row: row.predicted)
    assert best in tried or not helps
    (held_out,) = [row for row in tried if not (helps and row is best)]
    assert held_out.settings["data.workers"] not in report.ceilings.loader
    for row in tried:
        assert row.error == pytest.approx((row.predicted - row.measured) / row.measured)
        assert f"{row.change}: predicted" in told
    for row in report.what_if:
        assert row.low <= row.predicted <= row.high
        assert row.cost == pytest.approx(row.epoch_minutes / 60 * 2)
    formats = [row for row in report.what_if if "data.path" in row.settings]
    assert any("raw" in row.change for row in formats)
    assert any(row.settings.get("loader") == "torchvision" for row in report.what_if)
    assert any("data.batch_size" in row.settings for row in report.what_if)
    lines = error_history.read(tmp_path)
    assert [line["error"] for line in lines] == [row.error for row in tried]
    how_many = "the 2 predictions" if helps else "the one prediction"
    assert any(f"{how_many} tried on this machine so far" in note for note in report.ceilings.notes)
    assert any("GPU decode" in note for note in report.ceilings.notes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_leaves_nothing_that_was_packed(image_folder, tmp_path, number):
    options = short_options(image_folder, tmp_path)
    # for six seconds it tries what was packed: on a busy machine this process may hear late that it does
    command = [sys.executable, "tools/profile.py", "--minutes", "0.2", "--rounds", "2", *options]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # whoever starts the tests may ignore it, and then so would what is started
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    with process:
        # the first such line: rich repeats the one in whose writing it is interrupted
        assert any(line.startswith("what batches, loaders and formats change") for line in process.stdout)
        assert _left(process.pid)
        process.send_signal(number)
        told = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 128 + number
    assert not _left(process.pid) and "holds what was measured, without predictions" in told
    report = read_profile(tmp_path / "ddp" / "profile" / "report.json")
    assert report.ceilings.loop.rounds and report.what_if == ()


def test_what_a_killed_profiler_left_is_removed_and_nobody_elses(tmp_path):
    left, used, young, other = (tmp_path / name for name in (*(f"{FOLDER_PREFIX}{n}-x" for n in range(3)), "other"))
    for folder in (left, used, young, other):
        folder.mkdir()
        (folder / "train.beton").write_bytes(bytes(8))
        if folder is not young:
            os.utime(folder, (1.0, 1.0))
    with packed_sample._held(used):
        packed_sample._remove_left_behind(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted((used, young, other))
    packed_sample._remove_left_behind(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted((young, other))


def _left(pid: int) -> list[Path]:
    places = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [path for place in places for path in place.glob(f"{FOLDER_PREFIX}{pid}-*")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--price-per-hour", "-1"], "--price-per-hour -1 is no price: give 0 or more"),
        (["--price-per-hour", "much"], "'much'"),
        (["--price-per-hour", "inf"], "--price-per-hour inf is no price: give 0 or more, and 1,000,000,000 at most"),
        (["--price-per-hour", "nan"], "--price-per-hour nan is no price"),
        (["--price-per-hour", "1e308"], "is no price"),
        (["--apply", "--what-if", "none"], "--what-if none makes none"),
        (["--what-if", "some"], "'some'"),
        (["--aply"], "unknown option --aply: did you mean --apply"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, capfd):
    assert _command().main(words) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and len(told.strip().splitlines()) == 1


def test_under_torchrun_apply_is_refused_in_one_sentence(monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert _command().main(["--apply"]) == 2
    assert "--apply tries changes in one process: leave it out, or run it without torchrun" in capfd.readouterr().err


def test_what_is_tried_is_the_best_and_a_number_of_workers_outside_the_sweep():
    profile = full()
    sweep = next(iter(profile.ceilings.loader))
    now = profile.ceilings.loop.median
    rows = {
        "storage": (Change("storage", storage=2.0), 9 * now),
        "memory": (Change("memory", {"data.page_cache": "memory"}, in_memory=1.0, adds_memory=True), 9 * now),
        "seen": (Change("seen", {"data.workers": sweep}, workers=sweep), 1.5 * now),
        "held": (Change("held", {"data.workers": 37}, workers=37), 0.4 * now),
        "best": (Change("best", {"loader": "ffcv"}), 1.8 * now),
    }
    predicted = [(change, _row(change, rate)) for change, rate in rows.values()]
    assert what_if.best(profile, predicted)[0].text == "best"
    assert what_if.held_out(profile, predicted)[0].text == "held"
    assert what_if.held_out(profile, predicted[:3]) is None
    assert what_if.best(profile, predicted[:2]) is None
    slower = [predicted[3], (rows["best"][0], _row(rows["best"][0], 0.99 * now))]
    assert what_if.best(profile, slower) is None and what_if.held_out(profile, slower)[0].text == "held"


def test_what_is_slower_than_reading_from_storage_is_now_is_not_the_best():
    """Where memory does not hold the set, what counts is the loop from storage, and not the faster one from memory."""
    ceilings = dataclasses.replace(bare().ceilings, loop_cold=Rate((40.0,)))
    profile = dataclasses.replace(with_subject(bare(), stored_bytes=10**9, memory_bytes=10**8), ceilings=ceilings)
    change = Change("best", {"data.workers": 3}, workers=3)
    assert what_if.best(profile, [(change, _row(change, 50.0))]) is not None
    assert what_if.best(profile, [(change, _row(change, 39.0))]) is None


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """Runs `apply` on (change, predicted as a multiple of now) pairs; trials are not measured but as fast as now."""
    asked = []

    def measure(trials, ranks, seconds, rounds, tell):
        asked.append([trial.name for trial in trials])
        failing = {trial.name: "out of memory" for trial in trials if trial.name == "too large"}
        return {trial.name: Rate((10.0, 20.0)) for trial in trials if trial.name not in failing}, failing

    monkeypatch.setattr(what_if, "measure_trials", measure)

    def run(*pairs):
        profile, said = full(), []
        now = profile.ceilings.loop.median
        predicted = [(change, _row(change, factor * now)) for change, factor in pairs]
        config = short_config(tmp_path / "nowhere", tmp_path)
        rows, refused = what_if.apply(profile, config, ONE_RANK, Budget(), predicted, said.append)
        return [change.text for change, row in rows if row.measured], refused, said, asked

    return run


MORE = Change("more", {"data.workers": 37}, workers=37)
LARGER = Change("too large", {"data.batch_size": 64}, step=(1.0,))


def test_where_nothing_is_predicted_to_help_only_the_one_held_out_is_tried_and_that_is_said(tried):
    measured, refused, said, asked = tried((MORE, 0.7), (LARGER, 0.9))
    assert measured == ["more"] and asked == [["as it is", "more"]]
    assert refused == ["no change that can be tried is predicted to help"]
    assert "--apply: no change that can be tried is predicted to help" in said


def test_a_change_that_cannot_be_tried_leaves_the_other_one_and_its_reason(tried):
    measured, refused, _, _ = tried((LARGER, 1.5), (MORE, 1.2))
    assert measured == ["more"] and refused == ["too large: out of memory"]
    raw = Change("raw", {"data.path": "x-raw"}, format="raw")
    measured, refused, _, asked = tried((raw, 1.5), (MORE, 1.2))
    assert measured == ["more"] and asked[-1] == ["as it is", "more"]
    assert len(refused) == 1 and refused[0].startswith("raw: ") and "nowhere" in refused[0]


def test_with_nothing_to_try_predictions_stay(tried):
    measured, refused, _, asked = tried((Change("storage", storage=2.0), 2.0))
    assert measured == [] == asked and len(refused) == 2


def test_images_that_cannot_be_packed_cost_no_prediction(monkeypatch, tmp_path):
    @contextmanager
    def no_room(*_):
        raise FeedrateError("no room for 99 MB")
        yield

    def calibrated(profile, config, ranks, samples, *_):
        assert samples is None
        return [Change("batch of 64", {"data.batch_size": 64}, step=(1.1,))], ["batch 16: out of memory"]

    monkeypatch.setattr(what_if, "packed_samples", no_room)
    monkeypatch.setattr(what_if, "calibrated_changes", calibrated)
    profile = with_subject(full(), stored_bytes=10**9, memory_bytes=10**10)
    config = short_config(tmp_path, tmp_path)
    told = what_if.with_predictions(profile, config, ONE_RANK, Budget(), what_if.Wishes(), lambda text: None)
    assert any(row.change == "batch of 64" for row in told.what_if)
    (note,) = [note for note in told.ceilings.notes if note.startswith("not predicted: ")]
    assert "formats: no room for 99 MB" in note and "batch 16: out of memory" in note


@pytest.mark.parametrize(
    ("device", "told"), [("cuda", "batch, loader, GPU decode and format: "), ("cpu", "GPU decode: there is no")]
)
def test_what_quick_leaves_out_is_said(tmp_path, device, told):
    config = short_config(tmp_path, tmp_path)
    quick = what_if.Wishes("quick")
    found = what_if.with_predictions(with_subject(full(), device=device), config, ONE_RANK, Budget(), quick, print)
    assert told in found.ceilings.notes[-1] and "not tried with --what-if quick" in found.ceilings.notes[-1]


def _row(change, rate):
    return WhatIf(change.text, change.settings, rate, rate, rate, None, None, None, 1.0, None)


def test_the_history_is_appended_and_told_for_this_machine_alone(tmp_path):
    assert error_history.summary(tmp_path) == ""
    rows = [dataclasses.replace(_row(Change("x"), 100.0), measured=90.0, error=error) for error in (0.02, -0.08, 0.05)]
    error_history.append(tmp_path, full(), rows[:1])
    assert "the one prediction tried on this machine so far was off by 2.0%" in error_history.summary(tmp_path)
    error_history.append(tmp_path, full(), rows[1:])
    with open(tmp_path / error_history.NAME, "a") as file:
        file.write(json.dumps({"machine": "another", "error": 0.9}) + "\n" + '{"machine": "cut o')
    assert error_history.summary(tmp_path).startswith("the 3 predictions")
    assert error_history.summary(tmp_path).endswith("off by 5.0% in the median, 8.0% at most")
    assert error_history.summary(tmp_path, "another").startswith("the one prediction")
    error_history.append(tmp_path, full(), rows[:1])
    assert error_history.summary(tmp_path).startswith("the 4 predictions")


def test_packed_samples_are_the_sets_own_images_and_do_not_stay(image_folder):
    config = Config(name="x", loader="torchvision", data=DataConfig(path=str(image_folder)))
    with packed_samples(config, ["raw", "256", "full"], 20) as (samples, refused):
        assert set(samples.formats) == {"raw"} and samples.count == 20
        assert sorted(refused)[0] == "JPEG, shortest side 256 px: the images are no larger"
        folder = Path(samples.now.path)
        with (
            closing(open_records(image_folder, "train")) as whole,
            closing(open_records(samples.now.path, "train")) as now,
            closing(open_records(samples.formats["raw"].path, "train")) as raw,
        ):
            chosen = some_of(whole, 20)
            assert raw.is_raw.all() and not now.is_raw.any()
            for number in range(20):
                assert bytes(now.read(number)) == bytes(chosen.read(number))
                assert len(raw.read(number)) == 3 * int(chosen.widths[number]) * int(chosen.heights[number])
            assert samples.formats["raw"].images.num_bytes == pytest.approx(
                3 * np.mean(chosen.widths.astype(int) * chosen.heights)
            )
            assert samples.whole_set.num_pixels == pytest.approx(np.mean(whole.widths.astype(int) * whole.heights))
        assert folder.exists()
    assert not folder.exists()


@pytest.mark.skipif(library.load() is None, reason=f"no native kernel: {library.why_not()}")
def test_packing_images_as_they_are_is_tried_where_that_notes_seek_points(image_folder, tmp_path):
    config = Config(name="x", loader="turbo", data=DataConfig(path=str(image_folder)))
    with packed_samples(config, ["full"], 20) as (samples, refused):
        assert set(samples.formats) == {"full"} and not refused
        assert (Path(samples.formats["full"].path) / "train.seek").exists()
        assert not (Path(samples.now.path) / "train.seek").exists()
    with closing(open_records(image_folder, "train")) as records:
        samples = {"train": RecordSamples(records, str, str(image_folder), b"")}
        pack(samples, tmp_path / "packed", PackSettings(Encoding(seek_points=True)), 0)
    config = Config(name="x", loader="turbo", data=DataConfig(path=str(tmp_path / "packed")))
    with packed_samples(config, ["full", "raw"], 20) as (samples, refused):
        assert set(samples.formats) == {"raw"} and (Path(samples.now.path) / "train.seek").exists()


def test_of_a_set_of_which_a_part_is_chosen_that_part_is_packed_and_all_of_it_tried(image_folder):
    with closing(open_records(image_folder, "train")) as records:
        chosen = DataConfig(path=str(image_folder), subset=0.5, classes=records.classes[:1])
        config = Config(name="x", data=chosen)
        pool = training_sampling(records, chosen).pool
        with packed_samples(config, ["raw"], 1000) as (samples, _):
            assert samples.count == len(pool) < len(records) / 2
            assert samples.whole_set == samples.now.images
            with closing(open_records(samples.formats["raw"].path, "train")) as raw:
                assert raw.labels.tolist() == records.labels[pool].tolist()
                tried = with_path(config, samples.formats["raw"].path)
                assert training_sampling(raw, tried.data).pool is None


def test_no_room_for_packing_is_said(image_folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: _Usage())
    config = Config(name="x", data=DataConfig(path=str(image_folder)))
    with pytest.raises(FeedrateError, match="no room for"), packed_samples(config, ["raw"], 20):
        pass


class _Usage:
    free = 10


def test_how_long_all_takes_is_said_beforehand():
    def said(**wishes):
        return what_if.how_long(Budget(0.5), what_if.Wishes(**wishes))

    full = "to measure, about 0.5 minutes; to predict, 0.25 more"
    assert said() == f"{full}; opening and packing come on top"
    assert said(is_applied=True) == f"{full}; to try two of the predictions, 0.5 more; opening and packing come on top"
    assert said(level="none") == "to measure, about 0.5 minutes; opening and packing come on top"
