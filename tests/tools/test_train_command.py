"""engine/train.py as a user runs it: a process, its words and its exit status."""

import re
import signal
import sys

import pytest
import torch
from commands import TIMEOUT_S, TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from pictures import write_image_folder
from short_runs import outcome

from engine.config import Config
from engine.option_names import option_names
from engine.train import main

pytestmark = pytest.mark.usefixtures("sighup_heeded")


def _command(images, folder, **more):
    return [sys.executable, TRAIN, *short_options(images, folder, **more)]


def test_it_trains_from_another_folder_and_says_what_it_does(image_folder, tmp_path):
    result = run(_command(image_folder, "runs", epochs=1), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "loader: turbo (asked for)" in lines
    summary = next(line for line in lines if line.startswith("epoch 1/1"))
    for part in ("loss ", "train top-1 ", "eval top-1 ", "top-5 ", " s ", " img/s", "data-wait ", "RAM "):
        assert part in summary
    folder = tmp_path / "runs" / "ddp"
    assert {path.name for path in folder.iterdir()} >= {"config.toml", "env.json", "metrics.jsonl", "checkpoints"}


def test_the_written_configuration_is_a_preset_that_repeats_the_run(image_folder, tmp_path):
    assert main(short_options(image_folder, tmp_path / "one", epochs=1)) == 0
    config = tmp_path / "one" / "ddp" / "config.toml"
    assert main(["--config", str(config), "--run.folder", str(tmp_path / "two")]) == 0
    assert outcome(tmp_path / "two" / "ddp") == outcome(tmp_path / "one" / "ddp")


@pytest.mark.parametrize("warmup_epochs", [1, 0.5])
def test_a_warm_up_as_long_as_the_run_is_said_once_at_the_start(image_folder, tmp_path, capfd, warmup_epochs):
    assert main(short_options(image_folder, tmp_path, epochs=1, **{"optim.warmup-epochs": warmup_epochs})) == 0
    told = capfd.readouterr().out
    assert told.count("warning: the warm-up of 1 epochs takes all 1 of this run") == (warmup_epochs == 1)


def test_torchrun_starts_it_as_the_readme_says(image_folder, tmp_path):
    result = run(torchrun(1, "engine/train.py", *short_options(image_folder, tmp_path, epochs=1)))
    assert result.returncode == 0, result.stderr
    assert "done: " in result.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_mid_epoch_saves_and_the_same_command_goes_on_to_the_same_bits(image_folder, tmp_path, number):
    # long beside the time in which the signal must come
    more = {"epochs": 15, "run.checkpoint-every-steps": 5}
    assert main(short_options(image_folder, tmp_path / "whole", **more)) == 0
    command = _command(image_folder, tmp_path / "stopped", **more)
    process = start(command)
    folder = tmp_path / "stopped" / "ddp"
    wait_for(folder / "checkpoints" / "step-00000005.pt", process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + number, output
    assert "the same command goes on from there" in output
    assert not list(folder.rglob("*.partial"))
    assert main(command[2:]) == 0
    assert outcome(folder) == outcome(tmp_path / "whole" / "ddp")


def test_a_second_start_of_a_finished_run_says_so(image_folder, tmp_path, capfd):
    assert main(short_options(image_folder, tmp_path, epochs=1)) == 0
    capfd.readouterr()
    assert main(short_options(image_folder, tmp_path, epochs=1)) == 0
    assert "all 1 epochs are done already; another --name starts anew" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loader": "torchvison"}, "unknown loader 'torchvison': did you mean torchvision?"),
        ({"loader": "ffcv"}, "loader 'ffcv'"),
        ({"data.path": "no/such/folder"}, "no/such/folder does not exist"),
        (
            {"data.path": "no/such/imagenet-400"},
            "no/such/imagenet-400 does not exist: pack it by 'python tools/convert.py imagenet --preset 400 --out"
            " no/such/imagenet-400', or give other data by --data.path",
        ),
        ({"data.normalize": "set"}, "holds no mean and deviation of its own: pack it with tools/convert.py"),
        ({"model.name": "resnet19"}, "unknown model 'resnet19'"),
        ({"data.batch-size": "1000"}, "do not fill one batch of 1000"),
        ({"data.eval-split": "test"}, "has no 'test' split"),
        ({"optim.learning-rate": "-1"}, "--optim.learning-rate is -1.0: it must be above 0"),
        ({"execution.device": "cuda"}, "cuda"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(image_folder, tmp_path, capfd, options, message):
    if options == {"execution.device": "cuda"} and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert main(short_options(image_folder, tmp_path, **options)) == 2
    told = capfd.readouterr().err
    assert message in told
    assert told.startswith("error: ") and len(told.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_process_given_an_empty_folder_says_one_sentence_and_ends_with_status_2(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run(_command(tmp_path / "empty", tmp_path))
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "empty" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_corrupt_image_met_in_training_is_named(tmp_path, capfd):
    images = write_image_folder(tmp_path / "images", {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}})
    broken = images / "train" / "b" / "003.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    for loader in ("turbo", "torchvision"):
        assert main(short_options(images, tmp_path / loader, loader=loader)) == 2
        told = capfd.readouterr().err
        assert str(broken) in told and told.startswith("error: ") and len(told.strip().splitlines()) == 1


def test_a_loss_that_is_no_number_ends_the_run_by_a_sentence(image_folder, tmp_path, capfd):
    assert main(short_options(image_folder, tmp_path, **{"optim.learning-rate": 1e9, "optim.warmup-epochs": 0})) == 2
    told = capfd.readouterr().err
    what = r"(step \d+ the loss is (nan|-?inf) on rank 0|step \d+ weights of the model are no numbers any more)"
    assert re.match(rf"error: at {what}, of the samples \d+(, \d+){{5}}: lower --optim.learning-rate", told), told


def test_killing_a_rank_ends_the_others_and_nothing_hangs(image_folder, tmp_path):
    process = start(torchrun(2, TRAIN, *short_options(image_folder, tmp_path, epochs=500)))
    wait_for(tmp_path / "ddp" / "checkpoints" / "step-00000003.pt", process)
    ranks = run(["pgrep", "-P", str(process.pid)]).stdout.split()
    assert len(ranks) == 2
    run(["kill", "-9", ranks[1]])
    try:
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode != 0
    finally:
        if process.poll() is None:
            kill_all(process)


def test_help_lists_every_setting(capfd):
    assert main(["--help"]) == 0
    told = capfd.readouterr().out
    for option in option_names(Config):
        assert option in told
