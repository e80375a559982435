"""A run over samples that cannot be delivered: counted, listed, and the same after it was stopped and taken up."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from short_runs import run_to_end, short_config

from engine import data as engine_data
from engine.reporting.display import Display
from loaders.choose import open_loader
from loaders.errors import FeedrateError, LoaderError
from loaders.plan import Sequential
from loaders.records import open_records

BAD = {3, 17, 31}


@pytest.fixture
def damaged(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The image folder with three training pictures cut short; training substitutes them."""
    path = tmp_path / "images"
    shutil.copytree(image_folder, path)
    records = open_records(path, "train")
    for index in BAD:
        file = Path(records.where(index))
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])  # its header still tells its size

    def open_substituting(name, records, plan, options):
        on_bad = "error" if isinstance(plan.order, Sequential) else "substitute"
        return open_loader(name, records, plan, dataclasses.replace(options, on_bad=on_bad))

    monkeypatch.setattr(engine_data, "open_loader", open_substituting)
    return path


def test_the_list_is_there_when_the_budget_was_exceeded(damaged, tmp_path, monkeypatch):
    over = engine_data.open_loader

    def one_allowed(name, records, plan, options):
        return over(name, records, plan, dataclasses.replace(options, max_bad=1))

    monkeypatch.setattr(engine_data, "open_loader", one_allowed)
    config = short_config(damaged, tmp_path / "runs", "torchvision")
    with pytest.raises(LoaderError, match="more than the 1 that were allowed"):
        run_to_end(config)
    (line,) = listed(config)
    assert line["id"] in BAD


def listed(config) -> list[dict]:
    path = Path(config.run.folder) / config.name / "bad-samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_counts_and_lists_what_it_substituted(damaged, tmp_path, capsys):
    config = short_config(damaged, tmp_path / "runs", "torchvision")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, log_ids=True))
    metrics = run_to_end(config, Display(is_main=True))["metrics"]
    counts = [line["num_substituted"] for line in metrics if line["kind"] == "epoch"]
    assert len(counts) == 2 and all(2 <= count <= 3 for count in counts)  # one may be in the remainder of an epoch
    lines = listed(config)
    assert {line["id"] for line in lines} <= BAD and len(lines) == len({line["id"] for line in lines}) >= 2
    for line in lines:
        assert f"sample {line['id']} " in line["reason"] and str(damaged) in line["reason"]
        assert line["substitute"] not in BAD
    said = capsys.readouterr().out
    assert f"in {counts[0]} rows another sample stood in for {counts[0]} samples that could not be delivered" in said
    assert lines[0]["reason"] in said and "bad-samples.jsonl" in said


def test_a_run_without_bad_samples_says_nothing_of_them(image_folder, tmp_path, capsys):
    config = short_config(image_folder, tmp_path / "runs", "torchvision", epochs=1)
    metrics = run_to_end(config, Display(is_main=True))["metrics"]
    assert [line["num_substituted"] for line in metrics if line["kind"] == "epoch"] == [0]
    assert not (tmp_path / "runs" / "short" / "bad-samples.jsonl").exists()
    assert "stood in" not in capsys.readouterr().out


def test_a_run_taken_up_in_mid_epoch_ends_with_the_same_count_and_list(damaged, tmp_path):
    whole = short_config(damaged, tmp_path / "whole", "torchvision", epochs=1)
    expected = run_to_end(whole)
    assert len(listed(whole)) >= 2
    for step in range(1, 5):
        again = short_config(damaged, tmp_path / f"from-{step}", "torchvision", epochs=1)
        folder = tmp_path / f"from-{step}" / "short"
        shutil.copytree(tmp_path / "whole" / "short", folder)
        (folder / "bad-samples.jsonl").unlink()
        for path in (folder / "checkpoints").iterdir():
            if int(path.name.split("-")[1].split(".")[0]) > step:
                path.unlink()
        assert run_to_end(again) == expected
        assert listed(again) == listed(whole)


def test_the_budget_counts_from_where_the_epoch_began_not_from_where_it_was_taken_up(damaged, tmp_path):
    whole = short_config(damaged, tmp_path / "whole", "torchvision", epochs=1)
    (epoch,) = [line for line in run_to_end(whole)["metrics"] if line["kind"] == "epoch"]
    allowed = epoch["num_substituted"] - 1
    assert allowed >= 1
    folder = tmp_path / "again" / "short"
    shutil.copytree(tmp_path / "whole" / "short", folder)
    for path in (folder / "checkpoints").glob("step-00000005.*"):
        path.unlink()
    again = short_config(damaged, tmp_path / "again", "torchvision", epochs=1)
    again = dataclasses.replace(again, data=dataclasses.replace(again.data, max_bad=allowed))
    with pytest.raises(FeedrateError, match=f"more than the {allowed} that --data.max-bad allows"):
        run_to_end(again)
