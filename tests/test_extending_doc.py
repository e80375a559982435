"""docs/extending.md tells the truth: its two programs run as written, and train."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from commands import REPOSITORY, TRAIN, python

from loaders.api import LoaderOptions
from loaders.choose import choose_loader, open_loader
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Shuffled, View
from loaders.records import list_splits, open_records

DOC = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def birds(image_folder, tmp_path, monkeypatch):
    """The test's images as one flat folder with tables, and the document's two programs, where the work is done."""
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


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere:Thing", "no module nowhere"), ("my_loader:Thing", "has no Thing"), ("json.nowhere:X", "json.nowhere")],
)
def test_a_name_that_is_not_there_is_one_sentence(birds, name, says):
    with pytest.raises(FeedrateError, match=says):
        open_loader(name, None, None, LoaderOptions())
