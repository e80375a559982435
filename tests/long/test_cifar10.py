"""The shipped CPU preset on real CIFAR-10, through `tools/bench.py accuracy`: every loader learns the same from it."""

import json
import math
import subprocess
import sys

import pytest
from commands import REPOSITORY, environment

LOADERS = ("torchvision", "turbo", "ffcv", "dali")
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def report(packed_from, code_sha256, tmp_path_factory):
    """What the command found. Its runs are of this very code: those of other code are in folders of their own."""
    out = tmp_path_factory.mktemp("report")
    folder = REPOSITORY / "runs" / f"long-cifar10-{code_sha256}"
    words = ["--config", "cifar10_resnet20", "--data", str(packed_from("cifar10-jpeg.tar.xz", "cifar10"))]
    words += ["--loaders", ",".join(LOADERS), "--seeds", ",".join(map(str, SEEDS)), "--folder", str(folder)]
    command = [sys.executable, "tools/bench.py", "accuracy", *words, "--threads", "2", "--report", str(out)]
    subprocess.run(command, cwd=REPOSITORY, check=True, env={**environment(), "OMP_NUM_THREADS": "2"})
    (written,) = out.glob("accuracy_cifar10_resnet20_*.json")
    return json.loads(written.read_text())


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_passes_50_percent_in_three_epochs_on_the_ids_of_all(report, measured, loader):
    if loader in report["skipped"]:
        pytest.skip(report["skipped"][loader])
    assert report["settings"]["num_evaluated"] == 10_000 and report["settings"]["num_epochs"] == 3
    runs = [run for run in report["runs"] if run["loader"] == loader]
    assert [run["seed"] for run in runs] == list(SEEDS)
    for run in runs:
        assert run["eval_top1"] >= 0.5
        keys = ("eval_top1", "eval_top5", "train_loss", "images_per_s", "data_wait_share", "train_s")
        measured[f"seed {run['seed']}"] = {key: run[key] for key in keys}
    for found in report["seeds"].values():
        assert len(found["same_ids"]) == 1 and loader in found["same_ids"][0]
        # images of 32 px are cut whole and not resized, so even the pixels are the same; what is left is nothing at all
        assert found["difference"] <= 3 * math.sqrt(2 * 0.25 / 10_000)
