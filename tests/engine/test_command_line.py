import dataclasses
import io
import re
import signal
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest
from commands import REPOSITORY, TRAIN, environment, python

from engine.command_line import OwnOptions, load_preset, parse_config
from engine.config import Config, DataConfig, OptimConfig
from loaders.errors import FeedrateError


def test_options_override_the_preset_which_overrides_the_defaults():
    config = parse_config(["--config", "cifar10_resnet20", "--data.batch-size", "64", "--loader", "synthetic"])
    assert config.data.batch_size == 64
    assert config.loader == "synthetic"
    assert config.model.name == "cifar_resnet20"
    assert config.data.workers == DataConfig().workers
    assert config.name == "cifar10_resnet20"


def test_without_a_preset_all_is_default_and_the_run_is_called_so():
    assert parse_config([]) == Config(name="default")
    assert parse_config(["--name", "mine"]).name == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lodaer", "x"], "unknown option --lodaer: did you mean --loader"),
        (["--batch-size", "3"], "unknown option --batch-size: did you mean --data.batch-size"),
        (["--lr", "1"], "unknown option --lr: did you mean --optim.learning-rate? --help lists them all"),
        (["--optim.lr=1"], "unknown option --optim.lr: did you mean --optim.learning-rate?"),
        (["--data.size", "64"], "unknown option --data.size: did you mean --data.size-px?"),
        (["-j", "8"], "unknown option -j: did you mean --data.workers?"),
        (["--verbose"], "unknown option --verbose: --help lists them all"),
        (["--config", "cifar10_resne20"], "no preset 'cifar10_resne20': did you mean cifar10_resnet20"),
        (["--config"], "--config needs the name"),
        (["--epochs", "0"], "--epochs is 0: it must be 1 or more"),
        (["--config", "nope.toml"], "there is no file nope.toml: --config takes the path of a .toml file"),
        (["--config", "configs/nope"], "there is no file configs/nope: --config takes"),
        (
            ["--config", "cifar10_resnet20.toml"],
            "there is no file cifar10_resnet20.toml: did you mean cifar10_resnet20?",
        ),
        (["--data.batch-size", "0"], "--data.batch-size is 0"),
        (["--optim.learning-rate", "nan"], "--optim.learning-rate is nan"),
        (["--optim.name", "foo"], "unknown optimizer 'foo'"),
        (["--optim.schedule", "step"], "--optim.schedule is step: --optim.milestones must name"),
        (["--average.swa-start-epoch", "20"], "swa_start_epoch is 20 and the last of 16 epochs is 15"),
        (["--optim.nesterov", "--optim.momentum", "0"], "Nesterov"),
        (["--name", "a/b"], "without a slash"),
        (["--data.crop", "middle"], "invalid choice 'middle' for argument '--data.crop'. Expected one of"),
        (["--epochs", "many"], "Error parsing --epochs: invalid literal"),
        (["stray"], "Unrecognized options: stray"),
        (["--name", ".."], "no dots alone"),
        (["--name", "x" * 300], "200 bytes"),
        (["--seed", str(2**70)], "--seed is 1180591620717411303424: it must lie between"),
        (["--data.workers", "100000"], "--data.workers is 100000: it must lie between"),
        (["--data.batches-ahead", "1000000"], "--data.batches-ahead is 1000000: it must lie between"),
        (["--data.eval-batch-size-per-rank", "10000000000000"], "it must lie between 1 and 65536"),
        (["--data.block-mib", "inf"], "--data.block-mib is inf"),
        (["--data.block-mib", "1e300"], "--data.block-mib is 1e+300"),
        (["--data.crop", "pad", "--data.padding-px", "100000000000"], "0 … 65535 px"),
        (["--weights", "w.pt"], "unknown option --weights: did you mean --model.weights?"),
        (
            ["--data.normalize", "foo"],
            "--data.normalize is foo: it must be one of auto, imagenet, set, half, or 6 numbers with spaces between",
        ),
        (["--data.normalize", "1", "2", "3"], "--data.normalize is 1 2 3: it must be one of auto,"),
        (["--data.normalize", "1,2,3,4,5,6"], "or 6 numbers with spaces between"),
        (["--data.normalize"], "--data.normalize is empty: it must be one of auto,"),
        (
            ["--data.normalize", "1", "2", "3", "4", "5", "0"],
            "--data.normalize is 1 2 3 4 5 0: it must be the means of red, green and blue, 0 to 255, and then their",
        ),
        (
            ["--data.normalize", *["0.485", "0.456", "0.406", "0.229", "0.224", "0.225"]],
            "as of values of 0 to 1: it must be of 0 to 255, 123.675 116.28 103.53 58.395 57.12 57.375",
        ),
    ],
)
def test_a_bad_word_gives_one_sentence_with_the_nearest_good_one(arguments, message):
    with pytest.raises(FeedrateError) as error:
        parse_config(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and not re.match(r"Error parsing \w+:", str(error.value))


def test_the_sentence_is_there_on_a_terminal_that_knows_ascii_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(FeedrateError, match="epochs is 0: it must be 1 or more"):
        parse_config(["--epochs", "0"])
    with pytest.raises(FeedrateError, match="invalid choice 'middle' for argument '--data.crop'"):
        parse_config(["--data.crop", "middle"])


def test_pairs_and_names_stand_one_after_the_other_as_the_documents_have_them():
    schedule = ["--data.size-schedule", "0", "128", "6", "160", "12", "192"]
    data = parse_config([*schedule, "--data.classes", "tench", "goldfish", "--data.subset", "5000"]).data
    assert data.size_schedule == ((0, 128), (6, 160), (12, 192))
    assert data.classes == ("tench", "goldfish") and data.subset == 5000
    assert parse_config(["--data.size-ramp", "160", "192", "35", "39"]).data.size_ramp == (160, 192, 35, 39)


def test_what_may_be_given_any_number_of_says_what_it_takes():
    pairs, patterns = "it must be pairs of numbers, with", "it must be pairs of a pattern and a number, with"
    expected = {
        ("data", "classes"): None,
        ("data", "size_schedule"): "it must be pairs of whole numbers, with",
        ("data", "size_ramp"): "it must be whole numbers, with",
        ("optim", "betas"): "it must be numbers, with spaces between",
        ("optim", "options"): None,
        ("optim", "milestones"): "it must be numbers, with spaces between",
        ("optim", "points"): pairs,
        ("optim", "decay_factors"): patterns,
        ("optim", "rate_factors"): patterns,
        ("optim", "frozen_epochs"): "it must be a pattern and two whole numbers each time, with",
        ("run", "allow_change"): None,
    }
    found = {
        (section, name): kinds[0]
        for section, settings in get_type_hints(Config).items()
        if dataclasses.is_dataclass(settings)
        for name, hint in get_type_hints(settings).items()
        if len(kinds := get_args(hint)) == 2 and kinds[1] is ...
    }
    assert found.keys() == expected.keys()
    for (section, name), sentence in expected.items():
        option = f"--{section}.{name}".replace("_", "-")
        if sentence is None:  # words, of which any are good
            assert found[section, name] is str
            continue
        with pytest.raises(FeedrateError) as error:
            parse_config([option, "layer4.*"])
        assert str(error.value).startswith(f"{option} is layer4.*: {sentence}")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--optim.decay-factors", "groups.[01]*"], "groups.[01]*"),
        (["--optim.decay-factors", "it's", "x"], "it's x"),
        (["--optim.points", ""], "empty"),
    ],
)
def test_what_was_given_is_shown_as_it_was(words, shown):
    with pytest.raises(FeedrateError) as error:
        parse_config(words)
    assert str(error.value).startswith(f"{words[0]} is {shown}: it must be pairs of ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch': did you mean epochs"),
        ("[data]\nbatchsize = 3", "unknown key 'batchsize': did you mean batch_size"),
        ("[optim]\nlr = 0.1", "unknown key 'lr': did you mean learning_rate? known are name,"),
        ("lr = 0.1", "unknown key 'lr': did you mean learning_rate in [optim]? known are"),
        ("[optim]\nepochs = 3", "unknown key 'epochs': did you mean epochs, above all sections? known are"),
        ("[optimizer]\nlr = 3", "unknown key 'optimizer': did you mean optim? known are"),
        ("verbose = true", "unknown key 'verbose': known are name,"),
        ("[data]\ncrop = 'middle'", "it must be one of random-resized, pad, center"),
        ("epochs = 'three'", "must be of type int"),
        ("data = 3", "must be a table"),
        ("epochs = ", "is not valid TOML"),
        ("epochs = 0", "mine.toml: epochs is 0: it must be 1 or more"),
        ("[data]\nbatch_size = 0", "mine.toml: data: batch_size is 0: it must be 1 or more"),
        ("[optim]\nname = 'foo'", "mine.toml: optim: name: unknown optimizer 'foo'"),
        ("[data]\neval_subset = -1", "mine.toml: data: eval_subset: a subset of -1.0 must"),
        ("[data]\nrepeats = 2\nsampling = 'balanced'", "mine.toml: data: repeats is 2 and sampling balanced, which"),
        ("[execution]\ncuda_graphs = true\ncompile = true\n[optim]\naccumulate = 2", "mine.toml: cuda_graphs is on"),
        (
            "[data]\nnormalize = 'foo'",
            "data: normalize is 'foo': it must be one of auto, imagenet, set, half, or",
        ),
        ("[data]\nnormalize = 3", "normalize is 3: it must be one of auto, imagenet, set, half, or 6 numbers"),
        ("[data]\nnormalize = [1, 2]", "normalize is [1, 2]: it must have 6 values"),
        ("[data]\nnormalize = [1, 2, 3, 4, 5, 'x']", "data: normalize is 'x': it must be of type float"),
        ("[data]\nnormalize = [1, 2, 3, 4, 5, 300]", "data: normalize is 1 2 3 4 5 300: it must be the means of"),
    ],
)
def test_a_bad_preset_gives_one_sentence(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FeedrateError, match="mine.toml") as error:
        load_preset(str(path))
    assert message in str(error.value)


def test_of_what_a_preset_extends_a_bad_value_is_said_of_that_file(tmp_path):
    (tmp_path / "base.toml").write_text("[data]\nbatch_size = 0")
    (tmp_path / "mine.toml").write_text('extends = "base"')
    with pytest.raises(FeedrateError, match=r"base\.toml: data: batch_size is 0"):
        load_preset(str(tmp_path / "mine.toml"))


def test_six_numbers_stand_one_after_the_other_on_the_command_line_and_in_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nnormalize = [123.675, 116, 103.5, 58, 57, 57]")
    numbers = (123.675, 116.0, 103.5, 58.0, 57.0, 57.0)
    assert load_preset(str(path)).data.normalize == numbers
    assert parse_config(["--config", str(path), "--data.workers", "3"]).data.normalize == numbers
    assert parse_config(["--config", str(path), "--data.normalize", "half"]).data.normalize == "half"
    words = [str(number) for number in numbers]
    assert parse_config(["--data.normalize", *words, "--data.workers", "3"]).data.normalize == numbers


def test_a_preset_of_another_encoding_gives_one_sentence(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes('name = "Zoë"'.encode("latin-1"))
    with pytest.raises(FeedrateError, match=r"mine\.toml is not UTF-8, as TOML must be: byte 10 is 0xeb; save it as"):
        load_preset(str(path))


def test_a_preset_is_utf_8_wherever_it_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes('name = "Zoë"'.encode())
    assert load_preset(str(path)).name == "Zoë"


def test_a_preset_may_be_a_path_and_whole_numbers_stand_for_floats(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[optim]\nlearning_rate = 1\nbetas = [0.8, 0.9]")
    assert load_preset(str(path)).optim == OptimConfig(learning_rate=1.0, betas=(0.8, 0.9))


def _own_options():
    own = OwnOptions("What the command does.")
    own.add_argument("--turns", type=int, default=3, help="of the crank")
    return own


def test_a_commands_own_options_are_split_from_those_of_a_run():
    chosen, read_config = _own_options().split(["--epochs", "4", "--turns", "7", "--config", "cifar10_resnet20"])
    config = read_config()
    assert (chosen.turns, config.epochs, config.name) == (7, 4, "cifar10_resnet20")
    assert config == parse_config(["--epochs", "4", "--config", "cifar10_resnet20"])


def test_a_command_can_judge_its_own_values_before_anything_is_said_of_the_others():
    chosen, read_config = _own_options().split(["--turns", "-1", "--lodaer", "x", "--tuns", "2"])
    assert chosen.turns == -1  # the command would refuse it here
    with pytest.raises(FeedrateError, match="unknown option --lodaer: did you mean --loader"):
        read_config()
    with pytest.raises(FeedrateError, match="unknown option --tuns: did you mean --turns"):
        _own_options().split(["--tuns", "2"])[1]()
    with pytest.raises(FeedrateError, match="argument --turns: invalid int value: 'many'"):
        _own_options().split(["--turns", "many", "--lodaer", "x"])


def test_help_shows_a_commands_own_options_and_then_all_of_a_run(capsys):
    _, read_config = _own_options().split(["--help"])
    own = capsys.readouterr().out
    assert own.startswith("What the command does.\n") and "of the crank" in own and "--epochs" not in own
    with pytest.raises(SystemExit) as leaving:
        read_config()
    assert leaving.value.code == 0 and "--epochs" in capsys.readouterr().out


def test_help_names_presets_and_the_option_that_takes_one(capsys):
    for ask in (lambda: parse_config(["--help"]), _own_options().split(["--help"])[1]):
        with pytest.raises(SystemExit):
            ask()
        told = " ".join(capsys.readouterr().out.split())
        assert "--config NAME" in told and "cifar10_resnet20" in told


_TOOLS = [str(REPOSITORY / "tools" / f"{name}.py") for name in ("find_lr", "profile", "find_batch_size")]


@pytest.mark.parametrize("script", [TRAIN, *_TOOLS])
def test_help_is_of_the_command_itself_and_may_be_read_in_part(script):
    whole = python(script, "--help")
    assert whole.returncode == 0 and f"usage: {script} " in whole.stdout
    command = [sys.executable, script, "--help"]
    cut = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    cut.stdout.close()  # before a word is written
    told = cut.stderr.read()
    cut.stderr.close()
    assert (cut.wait(), told) == (128 + signal.SIGPIPE, "")
