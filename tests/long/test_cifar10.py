"""The shipped CPU preset on real CIFAR-10: both loaders learn, on the same stream, to the same accuracy."""

import json
import math
import subprocess
import sys

import pytest
from commands import REPOSITORY, TRAIN, environment

LOADERS = ("torchvision", "turbo")
SEEDS = (0, 1, 2)
FOLDER = REPOSITORY / "runs" / "long-cifar10"


@pytest.fixture(scope="module")
def packed(packed_from):
    return packed_from("cifar10-jpeg.tar.xz", "cifar10")


def _train(packed, loader, seed):
    name = f"{loader}-{seed}"
    options = ["--config", "cifar10_resnet20", "--data.path", str(packed), "--loader", loader, "--seed", str(seed)]
    command = [sys.executable, TRAIN, *options, "--name", name, "--run.folder", str(FOLDER), "--run.log-ids"]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={**environment(), "OMP_NUM_THREADS": "2"})
    lines = [json.loads(line) for line in (FOLDER / name / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.mark.parametrize("seed", SEEDS)
def test_both_loaders_pass_50_percent_in_three_epochs_on_the_same_ids(packed, measured, seed):
    epochs = {loader: _train(packed, loader, seed) for loader in LOADERS}
    for loader, records in epochs.items():
        assert len(records) <= 3 and records[-1]["eval_top1"] >= 0.5, loader
        assert records[-1]["num_evaluated"] == 10_000
        keys = ("eval_top1", "eval_top5", "train_loss", "images_per_s", "data_wait_share", "seconds")
        measured[loader] = {key: records[-1][key] for key in keys}
    files = [(FOLDER / f"{loader}-{seed}" / "ids-rank0.i64").read_bytes() for loader in LOADERS]
    assert files[0] == files[1] and len(files[0]) == 3 * 390 * 128 * 8
    one, two = (epochs[loader][-1]["eval_top1"] for loader in LOADERS)
    # images of 32 px are cut whole and not resized, so even the pixels are the same; what is left is nothing at all
    deviation = math.sqrt(2 * 0.25 / 10_000)
    assert abs(one - two) <= 3 * deviation
