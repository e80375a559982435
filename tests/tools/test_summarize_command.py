"""tools/summarize.py as a user runs it."""

import shlex
import signal
import sys

import pytest
from commands import python, run


def test_it_shows_layers_and_totals_of_a_preset():
    result = python("tools/summarize.py", "--config", "cifar10_resnet20")
    assert result.returncode == 0, result.stderr
    assert "Conv2d" in result.stdout and "[1, 64, 8, 8]" in result.stdout
    assert "cifar_resnet20 with 10 classes\nparameters: 269,722, of them trained: 269,722\n" in result.stdout
    assert "multiply-adds, products outside of layers included: 40,551,040 an image of 32 px" in result.stdout
    assert "--data.eval-size-px" not in result.stdout  # the same


def test_where_images_are_evaluated_at_another_size_it_says_which_of_both_the_table_is_of():
    result = python("tools/summarize.py", "--model.name", "cifar_resnet20", "--data.eval-size-px", "32")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(
        "an image of 224 px\nthis is training, by --data.size-px; evaluation is on images of 32 px,"
        " by --data.eval-size-px\n"
    )


def test_what_is_frozen_is_not_counted_as_trained():
    options = ["--model.name", "cifar_fast", "--data.size-px", "32", "--data.eval-size-px", "32", "--classes", "10"]
    result = python("tools/summarize.py", *options)
    assert result.returncode == 0, result.stderr
    frozen = 24 * 3 * 2 * 2 + 2 * (64 + 256 + 256)  # filters that whiten, scales of six norms
    assert f"parameters: 1,972,792, of them trained: {1_972_792 - frozen:,}" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.name", "resnet49"], "unknown model 'resnet49'"),
        (["--clases", "3"], "unknown option --clases: did you mean --classes"),
        (["--classes", "-1"], "--classes is -1: it must be 1 or more"),
        (["--classes", "x"], "invalid int value"),
        (["--model.name", "vgg11", "--data.size-px", "8"], "vgg11 cannot be trained on 256 images of 8 × 8 px"),
    ],
)
def test_bad_input_gives_one_sentence(words, message):
    result = python("tools/summarize.py", *words)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr


def test_where_nobody_reads_on_it_ends_without_a_traceback():
    summary = shlex.join([sys.executable, "tools/summarize.py", "--model.name", "cifar_resnet20"])
    done = run(["bash", "-c", f"{summary} | true; exit ${{PIPESTATUS[0]}}"])
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
