"""What a name that is no option may have meant."""

from collections import Counter

import pytest

from engine.config import Config
from engine.option_names import ELSEWHERE, name_meant, option_names, setting_names
from loaders.errors import did_you_mean

OPTIONS = option_names(Config)


def test_what_other_engines_call_an_option_leads_to_one_that_exists():
    settings = setting_names(Config)
    assert set(ELSEWHERE.values()) <= set(settings)
    last_parts = Counter(name.rpartition(".")[2] for name in settings)
    own = {name for name, sections in last_parts.items() if sections == 1}
    assert not ELSEWHERE.keys() & own, "our own names come first, so these words are never looked up"
    for word, name in ELSEWHERE.items():
        assert name_meant(f"--{word}", OPTIONS) == f"--{name}"


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("--lr", "--optim.learning-rate"),
        ("--optim.lr", "--optim.learning-rate"),
        ("--wd", "--optim.weight-decay"),
        ("--amp", "--execution.precision"),
        ("--pretrained", "--model.weights"),
        ("--ema", "--average.ema-decay"),
        ("--data.size", "--data.size-px"),
        ("--model.img_size", "--data.size-px"),
        ("--optimizer", "--optim.name"),
        ("--num_workers", "--data.workers"),
        ("--momentum", "--optim.momentum"),
        ("--label-smoothing", "--optim.label-smoothing"),
        ("--optm.momentum", "--optim.momentum"),
        ("--data.epochs", "--epochs"),
        ("--data.workes", "--data.workers"),
        ("--lerning-rate", "--optim.learning-rate"),
        ("--run-folder", "--run.folder"),
        ("--no-run.log-ids", "--run.no-log-ids"),
        ("--weights", "--model.weights"),  # not those of samples
        ("--dat.weights", "--data.weights"),
        ("--start-epoch", "--run.resume"),
        ("--mean", "--data.normalize"),
        ("--std", "--data.normalize"),
        ("--model.mean", "--data.normalize"),
        ("--data.normalise", "--data.normalize"),
    ],
)
def test_a_name_leads_to_the_option_that_is_meant(word, option):
    assert name_meant(word, OPTIONS) == option


@pytest.mark.parametrize("word", ["--verbose", "--debug", "--xyz", "--data.xyz", "--world-size", "--x", "--"])
def test_nothing_is_suggested_where_nothing_is_near(word):
    assert name_meant(word, OPTIONS) is None


def test_of_names_without_a_section_the_nearest_is_meant():
    assert name_meant("--tuns", ["--turns", "--epochs"]) == "--turns"
    assert name_meant("--lr", ["--turns"]) is None
    assert name_meant("--lr", []) is None


def test_words_that_have_only_their_dashes_in_common_are_not_near():
    assert did_you_mean("--lr", ["--to", "--loader"]) == ""
    assert did_you_mean("--sorce", ["--to", "--source"]) == "did you mean --source? "
