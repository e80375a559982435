"""~ is the home folder in every path that is given, also where no shell has replaced it."""

from pathlib import Path

import pytest

from converters import options
from engine.command_line import parse_config
from engine.config import RunConfig
from loaders.errors import FeedrateError
from loaders.home_folder import expand_home
from tools import evaluate
from tools.plots import confusion


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


def test_the_settings_of_a_run_name_the_home_folder_by_options_and_in_a_preset(home):
    words = ["--run.folder=~/runs", "--model.weights=~/w.pt", "--data.sampling=weighted", "--data.weights=~/c.npy"]
    config = parse_config(words)
    assert (config.run.folder, config.model.weights) == (f"{home}/runs", f"{home}/w.pt")
    assert config.data.weights == f"{home}/c.npy"
    Path(home, "mine.toml").write_text('[run]\nfolder = "~/of-preset"\n')
    preset = parse_config(["--config=~/mine.toml"])
    assert (preset.name, preset.run.folder) == ("mine", f"{home}/of-preset")


def test_a_folder_that_only_has_such_a_name_stays(home):
    for path in ("runs", "a/~/b", "~nobody-is-called-so/runs", ""):
        assert expand_home(path) == path
    assert RunConfig(folder="a~").folder == "a~"


def test_tools_take_it_too(home):
    Path(home, "set").mkdir()
    chosen = options.parse(["folder", "--source=~/set"], "about")
    assert (chosen.source, chosen.out) == (Path(home, "set"), Path(home, "set-packed"))
    assert options.parse(["folder", "--source=~/set", "--out=~/out"], "about").out == Path(home, "out")
    assert options.parse(["verify", "~/set"], "about").folder == Path(home, "set")
    with pytest.raises(FeedrateError, match=f"{home}/no-run.evaluation.json cannot"):
        confusion.run(["~/no-run"])
    with pytest.raises(FeedrateError, match=f"{home}/set has no config.toml"):
        evaluate._evaluate(["~/set"])
    chosen, _ = evaluate._options().split(["--per-class=~/c.csv", "--predictions=~/p.csv"])
    assert (chosen.per_class, chosen.predictions) == (f"{home}/c.csv", f"{home}/p.csv")
