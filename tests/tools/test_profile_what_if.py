"""Predictions of tools/profile.py as a user has them: calibrated on packed images, tried by --apply, remembered."""

import dataclasses
import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from commands import REPOSITORY, python, short_options
from shown_profiles import full
from test_profile_command import _command

from engine.config import Config, DataConfig
from engine.profiler.record import WhatIf
from engine.profiler.record_json import read_profile
from engine.profiler.what_if import Change
from loaders.errors import FeedrateError
from loaders.records import open_records
from tools.profiling import error_history, what_if
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
    assert len(tried) == 2 < len(report.what_if)
    best = max((row for row in report.what_if if row.settings), key=lambda row: row.predicted)
    assert best in tried
    (held_out,) = [row for row in tried if row is not best]
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
    assert any("2 predictions tried on this machine so far were off by" in note for note in report.ceilings.notes)
    assert any("GPU decode" in note for note in report.ceilings.notes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_that_was_packed(image_folder, tmp_path, number):
    options = short_options(image_folder, tmp_path)
    command = [sys.executable, "tools/profile.py", "--minutes", "0.05", "--rounds", "2", *options]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # whoever starts the tests may ignore it, and then so would what is started
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        heard = [line for line in iter(process.stdout.readline, "") if _is_trying(line, process, number)]
        assert heard and process.wait(60) == 130, process.stderr.read()
    assert not _left(process.pid) and not (tmp_path / "ddp").exists()


def _is_trying(line: str, process: subprocess.Popen, number: int) -> bool:
    """Interrupt the process once it tries what was packed, while that lies there."""
    if not line.startswith("what batches, loaders and formats change"):
        return False
    assert _left(process.pid)
    process.send_signal(number)
    return True


def _left(pid: int) -> list[Path]:
    return [path for place in ("/dev/shm", "/tmp") for path in Path(place).glob(f"{FOLDER_PREFIX}{pid}-*")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--price-per-hour", "-1"], "--price-per-hour -1 is no price: give 0 or more"),
        (["--price-per-hour", "much"], "'much'"),
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
    rows = {
        "storage": (Change("storage", storage=2.0), 900.0),
        "seen": (Change("seen", {"data.workers": sweep}, workers=sweep), 500.0),
        "held": (Change("held", {"data.workers": 37}, workers=37), 400.0),
        "best": (Change("best", {"loader": "ffcv"}), 800.0),
    }
    predicted = [(change, _row(change, rate)) for change, rate in rows.values()]
    assert what_if.best(predicted)[0].text == "best"
    assert what_if.held_out(profile, predicted)[0].text == "held"
    assert what_if.held_out(profile, predicted[:2]) is None
    assert what_if.best(predicted[:1]) is None


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
    config = Config(name="x", data=DataConfig(path=str(image_folder)))
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


def test_no_room_for_packing_is_said(image_folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: _Usage())
    config = Config(name="x", data=DataConfig(path=str(image_folder)))
    with pytest.raises(FeedrateError, match="no room for"), packed_samples(config, ["raw"], 20):
        pass


class _Usage:
    free = 10
