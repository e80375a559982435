"""docs/extending.md tells the truth: its programs run as written, three of them in a training."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from commands import REPOSITORY, TRAIN, python, run, torchrun
from short_runs import ONE_RANK, resumed_after, run_to_end, short_config

from engine.checkpointing.finished import find_weights, read_finished
from engine.command_line import parse_config
from engine.models.model_config import ModelConfig
from engine.optimisation.average import AverageConfig
from engine.scoring import score
from engine.trained_model import load_model
from loaders.api import LoaderOptions
from loaders.choose import choose_loader, open_loader
from loaders.crops import CenterCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sequential, Shuffled, View
from loaders.records import list_splits, open_records

DOC = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def birds(image_folder, tmp_path, monkeypatch):
    """The test's images as one flat folder with tables, and the document's programs, where the work is done."""
    for program in re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL):
        (tmp_path / program.split('"""')[1]).write_text(program)
    folder = tmp_path / "birds"
    folder.mkdir()
    for split in ("train", "val"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["file", "label"])
            for path in sorted((image_folder / split).rglob("*.jpg")):
                name = f"{split}-{path.parent.name}-{path.name}"
                (folder / name).write_bytes(path.read_bytes())
                lines.writerow([name, path.parent.name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_own_records_are_opened_and_read_by_all_loaders_alike(birds):
    path = f"my_records:CsvRecords@{birds}"
    assert list_splits(path) == ("train", "val")
    records = open_records(path, "train")
    assert len(records) == 37 and records.where(3).startswith(str(birds))
    plan = Plan(records.widths, records.heights, Shuffled(8), View(RandomResizedCrop(), 32, 0.5))
    batches = {}
    for name in ("turbo", "my_loader:MyLoader"):
        assert choose_loader(name)[0] == name
        loader = open_loader(name, records, plan, LoaderOptions(resize="area"))
        batches[name] = [(batch.images.clone(), batch.ids.clone()) for batch in loader.epoch(0)]
        loader.close()
    for ours, theirs in zip(*batches.values(), strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    (birds / records._files[5]).unlink()
    with pytest.raises(FeedrateError, match="sample 5 "):
        np.asarray(records.read(5))


def test_own_records_have_the_classes_of_the_training_split_in_both(birds):
    table = birds / "val.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if not line.endswith(",bee")))
    train, val = (open_records(f"my_records:CsvRecords@{birds}", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("ant", "bee", "cat") and set(val.labels.tolist()) == {0, 2}
    table.write_text("\n".join([*lines, f"{train._files[0]},wasp"]))
    with pytest.raises(FeedrateError, match="val.csv has the class 'wasp' and train.csv has not"):
        open_records(f"my_records:CsvRecords@{birds}", "val")


def test_the_loop_runs_and_gives_what_its_plan_says(birds, image_folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet").symlink_to(image_folder)
    done = python("my_loop.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = open_records(str(image_folder), "train")
    plan = Plan(records.widths, records.heights, Shuffled(32), View(RandomResizedCrop(), 64, 0.5))
    labels = [records.labels[plan.rows(epoch, 0).ids].tolist() for epoch in (0, 1)]  # 37 samples: one batch
    assert done.stdout.splitlines() == [f"{epoch} 0 (32, 3, 64, 64) {labels[epoch]}" for epoch in (0, 1)]


def test_what_batches_are_evaluated_by_is_as_the_document_says(image_folder):
    records = open_records(str(image_folder), "val")
    plan = Plan(records.widths, records.heights, Sequential(32), View(CenterCrop(), 64))
    loader = open_loader("turbo", records, plan, LoaderOptions(num_workers=1))
    ids = [batch.ids[: batch.num_valid].tolist() for batch in loader.epoch(0)]
    loader.close()
    assert ids == [list(range(len(records)))] and len(records) < 32


def test_training_runs_with_both(birds, tmp_path):
    done = python(
        *(TRAIN, "--data.path", f"my_records:CsvRecords@{birds}", "--loader", "my_loader:MyLoader"),
        *("--epochs", "1", "--data.batch-size", "16", "--data.size-px", "32", "--data.eval-size-px", "32"),
        *("--model.name", "cifar_resnet20", "--run.folder", str(tmp_path / "runs"), "--name", "own"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "runs" / "own" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["kind"] == "epoch" and records[-1]["num_images"] == 32


def test_a_run_of_an_own_model_goes_on_to_the_same_bits_and_is_evaluated_and_loaded_by_its_name(
    birds, image_folder, tmp_path, monkeypatch
):
    changes = {"model": ModelConfig("my_model:Net"), "average": AverageConfig(ema_decay=0.6)}
    config = short_config(image_folder, tmp_path / "runs", **changes)
    whole = run_to_end(config)
    assert resumed_after(config, 3) == whole

    folder = tmp_path / "runs" / "short"
    by_name = parse_config(["--config", str(folder / "config.toml")])
    for which, logged in (("last", "eval_loss"), ("ema", "eval_ema_loss")):
        scored = score(by_name, ONE_RANK, read_finished(find_weights(folder, which)), False, lambda text: None)
        assert scored.evaluation.loss == whole["metrics"][-1][logged]
    model, expected = load_model(folder)
    assert type(model).__name__ == "Net" and model.head.out_features == len(expected.classes) == 3

    monkeypatch.setattr(type(model).__init__, "__defaults__", (16,))  # as if its program had been changed
    longer = dataclasses.replace(config, epochs=3, run=dataclasses.replace(config.run, allow_change=("config.epochs",)))
    with pytest.raises(FeedrateError, match="does not fit .*my_model:Net itself"):
        run_to_end(longer)


def test_an_own_model_is_found_by_every_rank(birds, tmp_path):
    options = (
        *("--data.path", f"my_records:CsvRecords@{birds}", "--model.name", "my_model:Net", "--loader", "turbo"),
        *("--epochs", "1", "--data.batch-size", "16", "--data.size-px", "32", "--data.eval-size-px", "32"),
        *("--execution.device", "cpu", "--run.folder", str(tmp_path / "runs"), "--name", "two"),
    )
    done = run(torchrun(2, TRAIN, *options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model: my_model:Net, 0.02 million parameters" in done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere:Thing", "no module nowhere"), ("my_loader:Thing", "has no Thing"), ("json.nowhere:X", "json.nowhere")],
)
def test_a_name_that_is_not_there_is_one_sentence(birds, name, says):
    with pytest.raises(FeedrateError, match=says):
        open_loader(name, None, None, LoaderOptions())
