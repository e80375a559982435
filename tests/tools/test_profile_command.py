"""tools/profile.py as a user runs it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, TIMEOUT_S, environment, python, short_options
from rich.console import Console
from short_runs import ONE_RANK
from shown_profiles import full

from engine.command_line import load_preset
from engine.config import Config, DataConfig
from engine.profiler.record import STAGES, UNSEEN
from engine.profiler.record_json import read_profile
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError

PROFILE = str(REPOSITORY / "tools" / "profile.py")


def test_it_measures_every_ceiling_and_says_one_sentence(image_folder, tmp_path):
    options = short_options(image_folder, tmp_path, **{"data.workers": 3, "data.subset": 20})
    result = python("tools/profile.py", "--minutes", "0.02", "--rounds", "2", "--what-if", "quick", *options)
    # a real optimizer was built: had torch met this script as the standard library's `profile`, it would end here
    assert result.returncode == 0, result.stderr
    report = read_profile(tmp_path / "ddp" / "profile" / "report.json")
    ceilings = report.ceilings
    assert {1, available_cpus(), 3} <= set(ceilings.loader)
    for rate in (ceilings.step, *ceilings.loader.values(), ceilings.cold, ceilings.loop, ceilings.loop_cold):
        assert len(rate.rounds) == 2 and rate.low > 0
    assert ceilings.fed is None and ceilings.no_sync is None  # one rank, on a CPU
    assert ceilings.cold_share is None or 0 <= ceilings.cold_share <= 1
    assert report.verdict.sentence in " ".join(result.stdout.split())
    assert report.what_if and not any("data.batch_size" in row.settings for row in report.what_if)  # quick: no turns
    for row in report.what_if:  # an epoch is one of the chosen images
        assert row.epoch_minutes == pytest.approx(20 / row.predicted / 60)
    assert (
        report.subject.num_samples == 20
        and report.config["data"]["workers"] == 3
        and report.environment["cpus"] == available_cpus()
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
def test_its_reports_are_written_where_what_it_says_cannot_be(image_folder, tmp_path):
    words = ["--minutes", "0.02", "--rounds", "2", "--what-if", "none", *short_options(image_folder, tmp_path)]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, PROFILE, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            timeout=TIMEOUT_S,
        )
    assert ended.returncode == 0 and ended.stderr.count("is lost (No space left on device)") == 1, ended.stderr
    assert read_profile(tmp_path / "ddp" / "profile" / "report.json").verdict.sentence


def test_every_stage_has_its_row_and_shares_are_those_of_the_whole_loop(image_folder, tmp_path):
    result = python(
        "tools/profile.py",
        "--minutes",
        "0.02",
        "--rounds",
        "2",
        "--what-if",
        "none",
        *short_options(image_folder, tmp_path),
    )
    assert result.returncode == 0, result.stderr
    told = read_profile(tmp_path / "ddp" / "profile" / "report.json")
    assert {span.stage for span in told.timeline} >= {"data wait", "prepare", "forward", "backward", "optimizer"}
    (rank,) = told.ranks
    # beside other processes the loop may wait for longer than its stages explain, which has a row of its own
    assert tuple(stage.name for stage in rank.stages if stage.name != UNSEEN) == STAGES
    assert sum(stage.critical_share or 0 for stage in rank.stages) == pytest.approx(1, abs=0.02)
    for name in ("collate", "prepare", "forward", "backward", "optimizer"):
        stage = rank.stage(name)
        assert stage.wall_us > 0 and stage.p50_us <= stage.p90_us <= stage.p99_us
        assert stage.ceiling == pytest.approx(1e6 / stage.wall_us)
        assert len(stage.rounds_us) == 2
    for stage in rank.stages:
        assert stage.wall_us is not None or stage.note, stage.name
    used = rank.resources
    assert used.cpus_used > 0 and used.memory_bytes > 10**7 and used.processes[0].rss_bytes > 10**7
    assert used.gpu_memory_peak_bytes is None  # no GPU: not seen, so not 0
    assert rank.queue.first_batch_s > 0 and 0 <= rank.queue.get_block_share <= 1


def test_without_arguments_and_data_it_says_that_it_generates_images(tmp_path):
    """The default configuration is too heavy for a test: a smaller model, and nothing else, is asked for."""
    lighter = ["--data.size-px", "32", "--data.batch-size", "8", "--model.name", "cifar_resnet20"]
    result = python(PROFILE, "--minutes", "0.01", "--rounds", "1", "--what-if", "none", *lighter, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "data/imagenet is missing: profiling on generated photos in data/generated" in result.stdout
    assert (tmp_path / "data" / "generated").is_dir()


def test_photos_that_stand_in_hold_no_mean_of_their_own_so_none_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = _command()
    monkeypatch.setattr("converters.generated.photos.write_photos", lambda *asked, **more: None)
    for asked, used in (("set", "auto"), ("half", "half")):
        config = Config(data=DataConfig(normalize=asked))
        assert module._with_data(config, ONE_RANK, Console(quiet=True)).data.normalize == used


def test_it_profiles_what_is_normalised_otherwise(image_folder, tmp_path):
    options = ["--data.normalize", "1", "2", "3", "4", "5", "6", *short_options(image_folder, tmp_path)]
    result = python(PROFILE, "--minutes", "0.01", "--rounds", "1", "--what-if", "none", *options)
    assert result.returncode == 0, result.stderr
    assert read_profile(tmp_path / "ddp" / "profile" / "report.json").config["data"]["normalize"] == [1, 2, 3, 4, 5, 6]
    refused = python(PROFILE, "--data.normalize", "set", *short_options(image_folder, tmp_path))
    assert refused.returncode == 2 and "--data.normalize is set and" in refused.stderr


@pytest.mark.parametrize("preset", sorted(path.stem for path in (REPOSITORY / "configs").glob("*.toml")))
def test_without_imagenet_every_preset_of_it_is_profiled_on_generated_images(preset, tmp_path, monkeypatch):
    """Those of other sets name what is missing: photos would not do for them."""
    monkeypatch.chdir(tmp_path)
    module = _command()
    monkeypatch.setattr("converters.generated.photos.write_photos", lambda *asked, **more: None)
    config = load_preset(preset)
    found = module._with_data(config, ONE_RANK, Console(quiet=True)).data.path
    is_imagenet = Path(config.data.path).name.split("-")[0] == "imagenet"
    assert found == (str(module.GENERATED) if is_imagenet else config.data.path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--round", "2"], "unknown option --round: did you mean --rounds"),
        (
            ["sefl-test", "--quick"],
            "'sefl-test' is no command of profile.py: did you mean self-test? known are compare and",
        ),
        (
            ["runs/a"],
            "'runs/a' is no command of profile.py: known are compare and self-test, and without one it measures",
        ),
        (["--rounds", "0"], "--rounds is 0: it must be 1 or more"),
        (["--rounds", "9" * 400], "10,000 at most"),
        (["--minutes", "soon"], "'soon'"),
        (["--minutes", "0"], "--minutes is 0: it must be above 0"),
        (["--minutes", "inf"], "--minutes is inf: it must be above 0, and 10,080 at most, a week"),
        (["--minutes", "nan"], "--minutes is nan: it must be above 0"),
        (["--minutes", "1e300"], "10,080 at most"),
        (["--data.path", "no/such"], "no/such does not exist"),
        (["--data.path", "no/cifar10"], "no/cifar10 does not exist: pack it by 'python tools/convert.py cifar10 "),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, capfd):
    assert _command().main(words) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and len(told.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [(FeedrateError("no predictions"), 2, "error: no predictions; "), (KeyboardInterrupt(), 130, "interrupted: ")],
)
def test_what_was_measured_is_written_before_it_is_predicted_from(error, status, told, monkeypatch, tmp_path, capfd):
    command = _command()

    def fail(*_):
        raise error

    monkeypatch.setattr(command, "start_ranks", lambda device: ONE_RANK)
    monkeypatch.setattr(command, "profile", lambda *_: full())
    monkeypatch.setattr(command.what_if, "with_predictions", fail)
    assert command.main(["--run.folder", str(tmp_path), "--name", "a", "--data.path", str(tmp_path)]) == status
    folder = tmp_path / "a" / "profile"
    assert capfd.readouterr().err == f"{told}{folder} holds what was measured, without predictions\n"
    assert read_profile(folder / "report.json") == full() and (folder / "report.html").exists()


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_who_interrupts_what_it_prints_gets_no_traceback(monkeypatch, tmp_path, capfd):
    command = _command()
    monkeypatch.setattr(command, "start_ranks", lambda device: ONE_RANK)
    monkeypatch.setattr(command, "profile", lambda *_: full())
    monkeypatch.setattr(command.what_if, "with_predictions", lambda measured, *_: measured)
    monkeypatch.setattr(command, "print_profile", _interrupt)
    assert command.main(["--run.folder", str(tmp_path), "--name", "a", "--data.path", str(tmp_path)]) == 130
    folder = tmp_path / "a" / "profile"
    assert capfd.readouterr().err == f"interrupted: {folder} holds all of it\n" and (folder / "report.html").exists()


def test_a_report_that_cannot_be_written_is_one_sentence_and_the_result_is_printed_all_the_same(
    monkeypatch, tmp_path, capfd
):
    command = _command()
    monkeypatch.setattr(command, "start_ranks", lambda device: ONE_RANK)
    monkeypatch.setattr(command, "profile", lambda *_: full())
    monkeypatch.setattr(command.what_if, "with_predictions", lambda measured, *_: measured)
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert command.main(["--run.folder", str(tmp_path / "runs"), "--name", "a", "--data.path", str(tmp_path)]) == 2
    told = capfd.readouterr()
    assert full().verdict.sentence in told.out and "written to" not in told.out
    assert "runs/a/profile/report.json cannot be written (Not a directory): free some space or permit it, " in told.err
    assert told.err.endswith(" give another --run.folder\n") and told.err.count("\n") == 1


def test_off_a_terminal_a_round_is_one_line_and_lines_of_the_report_are_not_wrapped(monkeypatch, tmp_path, capfd):
    command = _command()
    monkeypatch.delenv("COLUMNS", raising=False)

    def measured(config, ranks, budget, environment, tell):
        for turn in ("once, uncounted", "round 1 of 2", "round 2 of 2"):
            for part in ("the step alone", "the loader alone, 1 worker"):
                tell(f"{turn}: {part}")
        return full()

    monkeypatch.setattr(command, "start_ranks", lambda device: ONE_RANK)
    monkeypatch.setattr(command, "profile", measured)
    monkeypatch.setattr(command.what_if, "with_predictions", lambda measured, *_: measured)
    assert command.main(["--run.folder", str(tmp_path), "--name", "a", "--data.path", str(tmp_path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "to measure, about 2 minutes; to predict, 1 more; opening and packing come on top"
    assert lines[1:4] == ["once, uncounted", "round 1 of 2", "round 2 of 2"]
    assert not any(line.startswith(("once", "round")) for line in lines[4:])
    assert len(full().verdict.sentence) > 80 and full().verdict.sentence in lines


@pytest.mark.parametrize("words", [["compare", "a", "b"], ["self-test", "--list"]])
def test_who_interrupts_its_other_commands_gets_none_either(monkeypatch, capfd, words):
    command = _command()
    monkeypatch.setattr(command.importlib.import_module(command.COMMANDS[words[0]]), "run", _interrupt)
    assert command.main(words) == 130
    assert capfd.readouterr().err == "interrupted\n"


def _command():
    """The script as a module, by its path: under its own name it would be the standard library's."""
    spec = importlib.util.spec_from_file_location("profile_command", PROFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
