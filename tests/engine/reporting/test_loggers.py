"""What a run writes beside metrics.jsonl, and that all of it is cut back exactly when a run goes on."""

import csv
import dataclasses
import json

import pytest
from short_runs import run_to_end, short_config, start_from
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import RunConfig
from engine.nesting import flat
from engine.optimisation.average import AverageConfig
from engine.reporting.loggers import build_loggers
from engine.reporting.run_folder import CLOCK_FIELDS, RunFolder

EVERYTHING = {"images": 0, "scalars": 0, "histograms": 0, "tensors": 0}  # 0: keep all


def _config(images, folder, **of_run):
    config = short_config(images, folder, "synthetic")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **of_run))


WITH_ALL = {"tensorboard_images": 3, "tensorboard_histograms": True}


def _records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _events(folder):
    """Everything in tensorboard/ but what a clock read: by kind and tag, a list of (step, value)."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance=EVERYTHING, purge_orphaned_data=False)
    events.Reload()
    tags = events.Tags()
    clocks = tuple(f"{kind}/{name}" for kind in ("step", "epoch") for name in CLOCK_FIELDS)
    content = {}
    for tag in tags["scalars"]:
        if not tag.startswith(clocks):
            content[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in tags["images"]:
        content[tag] = [(event.step, event.encoded_image_string) for event in events.Images(tag)]
    for tag in tags["histograms"]:
        content[tag] = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
    for tag in tags["tensors"]:
        content[tag] = [(event.step, event.tensor_proto.SerializeToString()) for event in events.Tensors(tag)]
    return content


def _table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name.split(".")[0] not in CLOCK_FIELDS} for row in rows]


def test_the_table_of_epochs_holds_what_the_log_holds(image_folder, tmp_path):
    run_to_end(_config(image_folder, tmp_path))
    epochs = [record for record in _records(tmp_path / "short") if record["kind"] == "epoch"]
    with open(tmp_path / "short" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(epochs) == 2
    for row, record in zip(rows, epochs, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in flat(record).items()}
    assert {"train_loss", "eval_loss", "eval_top1", "eval_top5", "eval_macro_f1", "learning_rate", "seconds"} <= set(
        row
    )
    assert {"images_per_s", "steady_images_per_s", "first_step_s", "inference_s_per_image"} <= set(row)
    assert {"resources.memory_bytes", "resources.gpu_share", "resources.gpu_memory_bytes"} <= set(row)
    assert not (tmp_path / "short" / "tensorboard").exists(), "only where asked for"


def test_tensorboard_holds_every_figure_of_the_log_pictures_and_histograms(image_folder, tmp_path):
    run_to_end(_config(image_folder, tmp_path, **WITH_ALL))
    events = _events(tmp_path / "short")
    for record in _records(tmp_path / "short"):
        at = record["step"] if record["kind"] == "step" else record["epoch"] + 1
        for name, value in record.items():
            if name in ("kind", "epoch", "step", *CLOCK_FIELDS) or not isinstance(value, int | float):
                continue
            values = dict(events[f"{record['kind']}/{name}"])
            assert values[at] == pytest.approx(value, rel=1e-6), name
    assert [step for step, _ in events["step/learning_rate"]] == [1, 3, 5, 7, 9]
    for number in range(3):
        assert [step for step, _ in events[f"evaluated/{number}"]] == [1, 2]
        texts = [text for _, text in events[f"evaluated/{number}/text_summary"]]
        assert all(b"taken for" in text for text in texts)
    histograms = [tag for tag in events if tag.startswith("parameters/")]
    assert len(histograms) > 20 and all(len(events[tag]) == 2 for tag in histograms)


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_a_run_that_goes_on_has_the_logs_of_one_never_interrupted(image_folder, tmp_path, step):
    config = _config(image_folder, tmp_path / "whole", **WITH_ALL)
    run_to_end(config)
    whole = tmp_path / "whole" / "short"
    start_from(whole, step, tmp_path / "again" / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again"))))
    again = tmp_path / "again" / "short"
    assert _events(again) == _events(whole)
    assert _table(again) == _table(whole)
    assert json.loads((again / "evaluation.json").read_text()) == json.loads((whole / "evaluation.json").read_text())
    assert (again / "confusion.npy").read_bytes() == (whole / "confusion.npy").read_bytes()


def test_averages_have_evaluations_of_their_own(image_folder, tmp_path):
    config = dataclasses.replace(_config(image_folder, tmp_path), average=AverageConfig(ema_decay=0.9))
    run_to_end(config)
    last = _records(tmp_path / "short")[-1]
    for name, prefix in (("evaluation", "eval_"), ("evaluation-ema", "eval_ema_")):
        report = json.loads((tmp_path / "short" / f"{name}.json").read_text())
        assert [report[field] for field in ("loss", "top1", "top5", "macro_f1")] == [
            last[prefix + field] for field in ("loss", "top1", "top5", "macro_f1")
        ]
    assert (tmp_path / "short" / "evaluation-ema-confusion.npy").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_its_logs_anew(image_folder, tmp_path):
    config = _config(image_folder, tmp_path / "whole", **WITH_ALL)
    expected = run_to_end(config)
    whole = tmp_path / "whole" / "short"
    start_from(whole, 0, tmp_path / "again" / "short")
    again = run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again"))))
    assert again == expected
    assert _events(tmp_path / "again" / "short") == _events(whole)


def test_tensorboard_may_be_off_for_a_while_and_keeps_what_it_had(image_folder, tmp_path):
    config = _config(image_folder, tmp_path / "whole", tensorboard=True)
    run_to_end(config)
    whole, again = tmp_path / "whole" / "short", tmp_path / "again" / "short"
    start_from(whole, 4, again)
    without = dataclasses.replace(config.run, folder=str(tmp_path / "again"), tensorboard=False)
    run_to_end(dataclasses.replace(config, run=without))
    for path in (again / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > 7:
            path.unlink()
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(without, tensorboard=True)))
    steps = [step for step, _ in _events(again)["step/loss"]]
    assert steps == [1, 3, 7, 9], "5 was logged while it was off; 7 after the second checkpoint"


def test_only_what_is_asked_for_is_built_and_other_ranks_write_nothing(tmp_path):
    kinds = lambda **of_run: [type(logger).__name__ for logger in build_loggers(RunConfig(**of_run), tmp_path)]  # noqa: E731
    assert kinds() == ["EpochTable"]
    assert kinds(tensorboard=True) == kinds(tensorboard_images=2) == kinds(tensorboard_histograms=True)
    assert kinds(tensorboard=True) == ["EpochTable", "TensorBoard"]
    folder = RunFolder(tmp_path, False, build_loggers(RunConfig(tensorboard=True), tmp_path))
    folder.cut_metrics({})
    folder.log({"kind": "epoch", "epoch": 0, "train_loss": 1.0})
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_begins_in_a_later_epoch_gets_a_column(tmp_path):
    folder = RunFolder(tmp_path, True, build_loggers(RunConfig(), tmp_path))
    folder.log({"kind": "epoch", "epoch": 0, "train_loss": 1.0})
    folder.log({"kind": "epoch", "epoch": 1, "train_loss": 0.5, "swa": {"top1": 0.75}})
    assert (tmp_path / "metrics.csv").read_text() == (
        "kind,epoch,train_loss,swa.top1\nepoch,0,1.0,\nepoch,1,0.5,0.75\n"
    )
