"""tools/profile.py as a user runs it."""

import importlib.util
import json

import pytest
from commands import REPOSITORY, python, short_options

PROFILE = str(REPOSITORY / "tools" / "profile.py")


def test_it_measures_three_rates_and_says_one_sentence(image_folder, tmp_path):
    options = short_options(image_folder, tmp_path)
    result = python("tools/profile.py", "--seconds", "0.2", "--rounds", "2", *options)
    # a real optimizer was built: had torch met this script as the standard library's `profile`, it would end here
    assert result.returncode == 0, result.stderr
    for row in ("step alone", "loader alone", "both together", "headroom of the loader"):
        assert row in result.stdout
    report = json.loads((tmp_path / "ddp" / "profile" / "report.json").read_text())
    rates = report["images_per_s"]
    for name in ("step_alone", "loader_alone", "together"):
        assert len(rates[name]["rounds"]) == 2
        assert 0 < rates[name]["lowest"] <= rates[name]["median"] <= rates[name]["highest"]
    assert report["verdict"]["headroom"] == rates["loader_alone"]["median"] / rates["step_alone"]["median"]
    assert report["verdict"]["sentence"] in result.stdout.replace("\n", " ")
    assert 0 <= report["data_wait_share"] <= 1


def test_without_arguments_and_data_it_says_that_it_generates_images(tmp_path):
    """The default configuration is too heavy for a test: a smaller model, and nothing else, is asked for."""
    lighter = ["--data.size-px", "32", "--data.batch-size", "64", "--model.name", "cifar_resnet20"]
    result = python(PROFILE, "--seconds", "0.1", "--rounds", "1", *lighter, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "data/imagenet is missing: profiling on generated photos in data/generated" in result.stdout
    assert (tmp_path / "data" / "generated").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--round", "2"], "unknown option --round: did you mean --rounds"),
        (["--rounds", "0"], "--rounds 1 or more"),
        (["--seconds", "soon"], "'soon'"),
        (["--data.path", "no/such"], "no/such does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, message, capfd):
    assert _command().main(words) == 2
    told = capfd.readouterr().err
    assert message in told and told.startswith("error: ") and len(told.strip().splitlines()) == 1


def _command():
    """The script as a module, by its path: under its own name it would be the standard library's."""
    spec = importlib.util.spec_from_file_location("profile_command", PROFILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
