"""`tools/evaluate.py`: a finished run's weights give the figures that the run itself had, on any ranks and loader."""

import csv
import dataclasses
import errno
import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from commands import REPOSITORY, python, run, torchrun
from pictures import write_image_folder
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import ONE_RANK, run_to_end, short_config

from converters.command import main as convert
from engine import scoring
from engine.checkpointing.finished import WEIGHTS_OF_RUN, Finished, find_weights, read_finished
from engine.checkpointing.weights import save_weights
from engine.command_line import parse_config
from engine.config import Config, DataConfig, OptimConfig
from engine.optimisation.average import AverageConfig
from engine.reporting import lines
from engine.reporting.display import Display
from engine.scoring import score
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics
from loaders.synthetic_records import SyntheticRecords
from tools import evaluate

EVALUATE = str(REPOSITORY / "tools" / "evaluate.py")
_AS_TRAINED = ("--loader", "turbo", "--execution.device", "cpu", "--execution.threads", "1")


@pytest.fixture(scope="module")
def finished(image_folder, tmp_path_factory):
    """The folder of a short run with both averages, which takes images for more than one class."""
    config = short_config(
        image_folder,
        tmp_path_factory.mktemp("runs"),
        epochs=4,
        optim=OptimConfig(learning_rate=0.002),
        average=AverageConfig(ema_decay=0.6, swa_start_epoch=0, swa_learning_rate=0.002),
    )
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, best_metric="eval_loss"))
    run_to_end(config)
    return Path(config.run.folder) / config.name


@pytest.fixture(autouse=True)
def _threads_stay():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _epochs(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def _score(folder, which="last", *options, top_k=0):
    config = parse_config(["--config", str(folder / "config.toml"), *options])
    return score(config, ONE_RANK, read_finished(find_weights(folder, which)), top_k, lambda text: None)


def _altered(finished, folder, change):
    """A file of the run's weights, with the tensors and the metadata that `change` makes of them."""
    tensors = load_file(finished / "weights.safetensors")
    with safe_open(finished / "weights.safetensors", framework="pt") as file:
        about = file.metadata()
    save_weights(folder / "altered.safetensors", *change(tensors, about))
    return folder / "altered.safetensors"


def _refused(capsys, *arguments):
    assert evaluate.main([str(word) for word in arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1, told
    return told


@pytest.mark.parametrize("which", sorted(WEIGHTS_OF_RUN))
def test_it_counts_what_the_run_itself_counted_to_the_last_digit(finished, which):
    epochs = _epochs(finished)
    logged = epochs[-1]
    if which.endswith("best"):
        logged = epochs[json.loads((finished / "best.json").read_text())["epoch"]]
    average = which.split("-")[0]
    prefix = f"eval_{average}_" if average in ("ema", "swa") else "eval_"
    found = _score(finished, which).evaluation
    assert found.num_samples == 23
    assert found.scores(prefix) == {name: logged[name] for name in found.scores(prefix)}


def test_the_run_of_these_tests_tells_its_weights_and_images_apart(finished):
    """Else equal figures would say little."""
    assert len({_score(finished, which).evaluation.loss for which in WEIGHTS_OF_RUN}) == 6
    assert len({answer.prediction.predicted for answer in _score(finished, top_k=1).answers}) > 1


def test_it_says_the_figures_and_writes_both_tables_and_leaves_the_run_alone(finished, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    per_class, answers = tmp_path / "classes.csv", tmp_path / "answers.csv"
    assert evaluate.main([str(finished), "--per-class", str(per_class), "--predictions", str(answers)]) == 0
    told = capsys.readouterr().out
    logged = _epochs(finished)[-1]
    num_right = round(logged["eval_top1"] * 23)
    assert f"weights: {finished / 'weights.safetensors'}\n" in told
    assert f"loss {logged['eval_loss']:.6f}  top-1 {logged['eval_top1']:.2%} ({num_right})  top-5 100.00% (23)" in told
    assert "\n23 images in " in told and f"written to {per_class}\n" in told and f"written to {answers}\n" in told
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before

    classes = list(csv.DictReader(per_class.open()))
    of_run = json.loads((finished / "evaluation.json").read_text())["classes"]
    assert [{**row, "num_right": int(row["num_right"])} for row in classes] == [
        {name: str(value) for name, value in row.items()} | {"num_right": row["num_right"]} for row in of_run
    ]
    rows = list(csv.DictReader(answers.open()))
    assert [int(row["id"]) for row in rows] == list(range(23))
    assert all(Path(row["where"]).parent.name == row["label"] for row in rows)
    assert sum(row["label"] == row["predicted"] for row in rows) == num_right
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


@pytest.mark.parametrize("to", ["beton", "shards"])
def test_answers_of_a_packed_set_name_the_files_that_were_packed(finished, tmp_path, to, capsys):
    plain = tmp_path / "plain.csv"
    assert evaluate.main([str(finished), "--predictions", str(plain)]) == 0
    rows = list(csv.DictReader(plain.open()))
    assert not any(row["name"] for row in rows)
    source = Path(rows[0]["where"]).parents[2]
    words = ["folder", "--source", str(source), "--out", str(tmp_path / "out"), "--to", to, "--workers", "1"]
    assert convert(words, "", None) == 0
    answers = tmp_path / "packed.csv"
    path = str(tmp_path / "out")
    assert evaluate.main([str(finished), "--data.path", path, "--predictions", str(answers)]) == 0
    capsys.readouterr()
    packed = list(csv.DictReader(answers.open()))
    names = [row["name"] for row in packed]
    assert sorted(names) == sorted(str(Path(row["where"]).relative_to(source / "val")) for row in rows)
    assert names != sorted(names)  # they are stored in another order, so each name stands by its own image
    assert all(Path(row["name"]).parent.name == row["label"] for row in packed)
    taken_for = {str(Path(row["where"]).relative_to(source / "val")): row["predicted"] for row in rows}
    assert {row["name"]: row["predicted"] for row in packed} == taken_for


def test_two_ranks_count_and_answer_what_one_does(finished, tmp_path):
    words = [EVALUATE, str(finished), "--predictions"]
    alone = python(*words, str(tmp_path / "one.csv"))
    together = run(torchrun(2, *words, str(tmp_path / "two.csv")))
    assert alone.returncode == together.returncode == 0, alone.stderr + together.stderr
    [line] = [line for line in alone.stdout.splitlines() if line.startswith("loss ")]
    assert together.stdout.splitlines().count(line) == 1
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert len((tmp_path / "one.csv").read_bytes().splitlines()) == 1 + 23


def test_a_long_evaluation_says_how_far_it_is(finished, monkeypatch, capsys):
    monkeypatch.setattr(lines, "FIRST_LINE_S", 0.0)  # then even a short one is long
    assert evaluate.main([str(finished)]) == 0
    assert capsys.readouterr().out.count("\nevaluating: batch 1 of ") == 1


def test_a_table_of_very_many_rows_is_written_without_holding_them(tmp_path):
    file = tmp_path / "answers.csv"
    rows = ({"id": number, "where": f"\udce9 {number}"} for number in range(20_000))
    tracemalloc.start()
    try:
        evaluate._write(str(file), rows, Display(is_main=False))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    lines = file.read_bytes().split(b"\r\n")
    assert lines[:2] == [b"id,where", b"0,\xe9 0"] and lines[-2:] == [b"19999,\xe9 19999", b""] and len(lines) == 20_002
    assert most < file.stat().st_size


@pytest.mark.parametrize("loader", ["torchvision", "resident"])
def test_another_loader_resizing_alike_gives_the_same_counts(finished, loader):
    exact = ("--data.resize", "exact")
    expected = _score(finished, "last", *exact, top_k=1)
    found = _score(finished, "last", *exact, "--loader", loader, top_k=1)
    assert found.evaluation.loss == expected.evaluation.loss
    assert [answer.prediction for answer in found.answers] == [answer.prediction for answer in expected.answers]


def test_another_set_of_the_same_classes_may_be_given_and_another_split(finished, tmp_path, capsys):
    split = {"ant": 2, "bee": 1, "cat": 3}
    other = write_image_folder(tmp_path / "other", {"val": split})  # it needs no images to train on
    assert evaluate.main([str(finished), "--data.path", str(other)]) == 0
    assert "\n6 images in " in capsys.readouterr().out
    assert evaluate.main([str(finished), "--data.eval-split", "train"]) == 0
    assert "data: 37 of 'train' to evaluate" in capsys.readouterr().out


def test_a_runs_relative_data_are_found_from_elsewhere(image_folder, tmp_path, monkeypatch, capsys):
    began, elsewhere = tmp_path / "began", tmp_path / "elsewhere"
    shutil.copytree(image_folder, began / "clean")
    elsewhere.mkdir()
    monkeypatch.chdir(began)
    run_to_end(short_config(Path("clean"), Path("runs"), epochs=1))
    assert evaluate.main(["runs/short"]) == 0
    [figures] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loss ")]
    monkeypatch.chdir(elsewhere)
    short = began / "runs" / "short"
    for target in (short, short / "weights.safetensors", max((short / "checkpoints").glob("step-*.pt"))):
        assert evaluate.main([str(target)]) == 0
        told = capsys.readouterr().out
        assert f"clean is not here: reading {began / 'clean'}, from where {short} was started\n" in told
        assert figures in told and "note:" not in told
    (began / "other").mkdir()  # which the run never read
    assert "other does not exist: give a packed folder" in _refused(capsys, short, "--data.path", "other")
    (began / "clean").rename(began / "moved")
    told = _refused(capsys, short)
    assert f"clean exists neither here nor in {began}, where {short} was started: give the data by --data.path" in told
    assert evaluate.main([str(short), "--data.path", str(began / "moved")]) == 0
    assert "cifar10-packed does not exist: pack it by 'python" in _refused(
        capsys, short, "--data.path", "data/cifar10-packed"
    )
    (short / "env.json").write_text("{}")  # of an older run
    assert "clean does not exist: give a packed folder" in _refused(capsys, short)


def test_a_file_from_elsewhere_tells_its_model_and_sizes_itself(finished, image_folder, tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    shutil.copy(finished / "weights-best.safetensors", file)
    best = json.loads((finished / "best.json").read_text())["epoch"]
    assert evaluate.main([str(file), "--data.path", str(image_folder), *_AS_TRAINED]) == 0
    told = capsys.readouterr().out
    assert f"weights: {file}, of epoch {best + 1}\n" in told
    assert f"loss {_epochs(finished)[best]['eval_loss']:.6f}  " in told
    assert "note: the settings are not all those of the training" in told  # it has none but the metadata's
    assert evaluate.main([str(file), "--config", str(finished / "config.toml")]) == 0
    assert "note:" not in capsys.readouterr().out
    # what is asked for goes before what the file tells
    assert evaluate.main([str(file), "--data.path", str(image_folder), "--data.eval-size-px", "24", *_AS_TRAINED]) == 0
    assert f"loss {_epochs(finished)[best]['eval_loss']:.6f}  " not in capsys.readouterr().out


def test_a_file_in_a_runs_folder_goes_by_its_settings_and_so_does_a_checkpoint(finished, capsys):
    newest = max((finished / "checkpoints").glob("step-*.pt"))
    for file in (finished / "weights.safetensors", newest):
        assert evaluate.main([str(file)]) == 0
        told = capsys.readouterr().out
        assert f"loss {_epochs(finished)[-1]['eval_loss']:.6f}  " in told
        assert ("does not tell its classes" in told) == ("does not tell what images" in told) == (file == newest)


def test_classes_in_another_order_are_matched_by_name(finished, tmp_path, capsys):
    order = [2, 0, 1]

    def reorder(tensors, about):
        names = json.loads(about["classes"])
        of_classes = {name: tensor[order] for name, tensor in tensors.items() if name.startswith("classifier.")}
        assert len(of_classes) == 2
        return tensors | of_classes, about | {"classes": json.dumps([names[place] for place in order])}

    file = _altered(finished, tmp_path, reorder)
    assert evaluate.main([str(file), "--config", str(finished / "config.toml")]) == 0
    told = capsys.readouterr().out
    logged = _epochs(finished)[-1]
    assert "matched by name" in told
    assert f"loss {logged['eval_loss']:.6f}  top-1 {logged['eval_top1']:.2%}" in told


def test_images_are_normalised_as_the_weights_were_trained(finished, tmp_path):
    def other(tensors, about):
        return tensors, about | {"normalize": json.dumps({"mean": [100, 90, 80], "std": [30, 40, 50]})}

    config = parse_config(["--config", str(finished / "config.toml")])
    file = read_finished(_altered(finished, tmp_path, other))
    as_set = dataclasses.replace(file, channels=None)
    losses = [score(config, ONE_RANK, one, 0, lambda text: None).evaluation.loss for one in (file, as_set)]
    assert losses[1] == _epochs(finished)[-1]["eval_loss"] != losses[0]


def test_it_says_where_the_set_has_other_statistics_of_its_own():
    records = SyntheticRecords(1, 1, 16, 16)
    own, other = (ChannelStatistics((mean, 2, 3), (4, 5, 6), "the set's") for mean in (1, 9))
    file = Finished(Path("w.safetensors"), channels=own)
    for of_set, says in ((None, False), (own, False), (other, True)):
        records.channels, told = of_set, []
        assert scoring._channels(records, file, DataConfig(), told.append) == own
        assert any("are not used (the set's)" in line for line in told) is says


def test_a_normalisation_that_is_asked_for_is_used_only_where_the_file_tells_of_none(finished, tmp_path):
    records, told = SyntheticRecords(1, 1, 16, 16), []
    file = Finished(Path("w.safetensors"), channels=ChannelStatistics((1, 2, 3), (4, 5, 6), "its own"))
    half = DataConfig(normalize="half")
    assert scoring._channels(records, file, half, told.append) == file.channels
    assert "those of --data.normalize are others, and are not used" in told[-1]
    for same in ((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "auto", "set"):  # set: what a run's config.toml says, on another set
        told.clear()
        assert scoring._channels(records, file, DataConfig(normalize=same), told.append) == file.channels
        assert len(told) == 1
    untold = Finished(Path("w.pt"))
    assert scoring._channels(records, untold, half, told.append).mean == (127.5, 127.5, 127.5)
    assert "w.pt does not tell what images were normalised by: the mean and deviation of --data.normalize h" in told[-1]
    with pytest.raises(FeedrateError, match=r"--data\.normalize is set and sets/photos holds no mean and deviation of"):
        scoring._channels(records, untold, DataConfig(path="sets/photos", normalize="set"), told.append)


def test_a_run_of_another_normalisation_is_evaluated_by_it_to_the_digit(image_folder, tmp_path):
    numbers = (100.0, 110.5, 90.0, 30.0, 45.0, 77.0)
    config = short_config(image_folder, tmp_path, epochs=1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, normalize=numbers))
    run_to_end(config)
    folder = tmp_path / "short"
    scored = _score(folder)
    assert scored.evaluation.loss == _epochs(folder)[-1]["eval_loss"]
    config = parse_config(["--config", str(folder / "config.toml")])
    assert config.data.normalize == numbers
    newest = read_finished(max((folder / "checkpoints").glob("step-*.pt")))  # tells nothing: the run's settings do
    assert score(config, ONE_RANK, newest, 0, lambda text: None).evaluation.loss == scored.evaluation.loss


def test_a_set_of_other_classes_is_refused_by_name(finished, tmp_path, capsys):
    other = write_image_folder(tmp_path / "other", {"val": {"ant": 1, "bee": 1, "dog": 1}})
    told = _refused(capsys, finished, "--data.path", other)
    assert "the set alone has 'dog', the weights alone have 'cat'" in told
    assert "must name a set of these classes, or of some of them" in told
    fewer = write_image_folder(tmp_path / "fewer", {"val": {"ant": 1, "dog": 1}})
    told = _refused(capsys, finished, "--data.path", fewer)
    assert "has 2 classes and" in told and "the set alone has 'dog', the weights alone have 'bee', 'cat'" in told


@pytest.mark.parametrize("packed", [False, True])
def test_a_set_of_some_of_the_classes_is_matched_by_name(finished, image_folder, tmp_path, packed, capsys):
    """Each image is taken for what it was beside images of the other classes, under the right names."""
    answers, per_class, part = tmp_path / "answers.csv", tmp_path / "classes.csv", tmp_path / "part"
    assert evaluate.main([str(finished), "--predictions", str(answers), "--per-class", str(per_class)]) == 0
    whole = [row for row in csv.DictReader(answers.open()) if row["label"] in ("bee", "cat")]
    whole_classes = {row["class"]: row for row in csv.DictReader(per_class.open())}
    for name in ("bee", "cat"):
        shutil.copytree(image_folder / "val" / name, part / "val" / name)
    if packed:
        words = ["folder", "--source", str(part), "--out", str(tmp_path / "out"), "--workers", "1"]
        assert convert([*words, "--order", "source"], "", None) == 0
        part = tmp_path / "out"
    capsys.readouterr()
    words = ["--data.path", str(part), "--data.expected-classes", "3"]  # as a preset's, which is of the weights' set
    assert evaluate.main([str(finished), *words, "--predictions", str(answers), "--per-class", str(per_class)]) == 0
    told = capsys.readouterr().out
    assert told.count("the set has 2 of the weights' 3 classes, matched by name; predictions range over all 3\n") == 1
    rows, kept = list(csv.DictReader(answers.open())), ("label", "predicted", "probability")
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in whole]
    num_right = sum(row["label"] == row["predicted"] for row in whole)
    assert f"top-1 {num_right / len(whole):.2%} ({num_right})" in told
    classes = {row["class"]: row for row in csv.DictReader(per_class.open())}
    assert list(classes) == ["ant", "bee", "cat"] and classes["ant"]["num_samples"] == "0"
    for name in ("bee", "cat"):
        for column in ("num_samples", "num_right", "accuracy"):
            assert classes[name][column] == whole_classes[name][column]


def test_records_that_let_nobody_change_them_are_refused_in_words(finished):
    class Fixed(NamedTuple):
        classes: tuple = ("ant", "bee")
        labels: np.ndarray = np.zeros(3, np.int64)

    with pytest.raises(FeedrateError, match="records let nobody set labels and classes"):
        scoring._fit_classes(read_finished(finished / "weights.safetensors"), Config(), print, Fixed())


def test_the_likeliest_classes_are_told_in_order(finished, tmp_path, capsys):
    files = [tmp_path / "one.csv", tmp_path / "three.csv"]
    for file, words in zip(files, ([], ["--topk", "3"]), strict=True):
        assert evaluate.main([str(finished), "--predictions", str(file), *words]) == 0
    one, three = (list(csv.DictReader(file.open())) for file in files)
    added = ["predicted_2", "probability_2", "predicted_3", "probability_3"]
    assert list(three[0]) == [*one[0], *added]
    assert [{name: row[name] for name in one[0]} for row in three] == one
    for row in three:
        shares = [float(row[name]) for name in ("probability", "probability_2", "probability_3")]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1) < 1e-4
        assert {row["predicted"], row["predicted_2"], row["predicted_3"]} == {"ant", "bee", "cat"}
    more = [finished, "--predictions", files[0], "--topk"]
    assert "--topk is 4 and there are 3 classes: it may not be more" in _refused(capsys, *more, 4)
    assert "'0' is not a whole number of 1 or more" in _refused(capsys, *more, 0)
    assert "give both, or leave it" in _refused(capsys, finished, "--topk", 2)


def test_images_alone_get_predictions_and_no_accuracy(finished, image_folder, tmp_path, capsys):
    flat, answers, per_class = tmp_path / "flat", tmp_path / "answers.csv", tmp_path / "classes.csv"
    assert evaluate.main([str(finished), "--predictions", str(answers)]) == 0
    known = list(csv.DictReader(answers.open()))
    flat.mkdir()
    for row in known:
        source = Path(row["where"])
        shutil.copy(source, flat / f"{source.parent.name}-{source.name}")
    capsys.readouterr()
    words = ["--data.path", str(flat), "--data.classes", "bee", "--topk", "2"]
    assert evaluate.main([str(finished), *words, "--predictions", str(answers), "--per-class", str(per_class)]) == 0
    told = capsys.readouterr().out
    assert "data: 23 images without labels: predictions only, of 3 classes\n" in told
    assert f"{per_class} is not written: there are no labels to count by\n" in told and not per_class.exists()
    assert "top-1" not in told and "loss" not in told and "\n23 images in " in told
    rows, kept = list(csv.DictReader(answers.open())), ("predicted", "probability")
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in known]
    assert {row["label"] for row in rows} == {""} and "predicted_2" in rows[0]
    assert [Path(row["where"]).parent for row in rows] == [flat] * 23
    newest = max((finished / "checkpoints").glob("step-*.pt"))  # tells no classes
    told = _refused(capsys, newest, "--data.path", flat, "--predictions", answers)
    assert "does not tell its classes, nor does" in told
    told = _refused(capsys, finished, "--data.path", flat)
    assert f"{flat} holds images and no class folders" in told and "--predictions FILE.csv writes what" in told


def test_a_class_without_images_may_be_lacking_from_a_chosen_part_too(finished, tmp_path, capsys):
    part = write_image_folder(tmp_path / "part", {"val": {"bee": 2, "cat": 3}})
    answers = tmp_path / "answers.csv"
    words = ["--data.path", str(part), "--data.classes", "cat", "--predictions", str(answers)]
    assert evaluate.main([str(finished), *words]) == 0
    assert [row["label"] for row in csv.DictReader(answers.open())] == ["cat"] * 3


def _nameless(tensors, about):
    return tensors, about | {"classes": '["0", "1", "2"]'}


def test_numbers_for_want_of_names_are_matched_by_number(finished, image_folder, tmp_path, capsys):
    file = _altered(finished, tmp_path, _nameless)
    assert evaluate.main([str(file), "--config", str(finished / "config.toml")]) == 0
    told = capsys.readouterr().out
    assert "warning: the weights have no names of classes, only numbers: they are matched by number" in told
    assert f"loss {_epochs(finished)[-1]['eval_loss']:.6f}  " in told
    words = ["folder", "--source", str(image_folder), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert convert(words, "", None) == 0
    (tmp_path / "out" / "val.beton").rename(tmp_path / "val.beton")  # alone, as FFCV leaves it
    assert evaluate.main([str(finished), "--data.path", str(tmp_path / "val.beton")]) == 0
    told = capsys.readouterr().out
    assert "warning: the set has no names of classes, only numbers: they are matched by number" in told
    assert f"top-1 {_epochs(finished)[-1]['eval_top1']:.2%} " in told


def test_numbers_of_other_classes_are_refused(finished, tmp_path, capsys):
    file = _altered(finished, tmp_path, _nameless)
    other = write_image_folder(tmp_path / "other", {"val": dict.fromkeys(("ant", "bee"), 1)})
    told = _refused(capsys, file, "--data.path", other, *_AS_TRAINED)
    assert f"{other} has 2 classes and {file} was trained on 3: the set alone has 'ant', 'bee'," in told
    named = write_image_folder(tmp_path / "named", {"val": dict.fromkeys(("0", "1", "3"), 1)})
    told = _refused(capsys, file, "--data.path", named, *_AS_TRAINED)
    assert f"has 3 classes and {file} was trained on 3 of other names: the set alone has '3', the weights" in told


def test_weights_that_do_not_fit_the_model_are_refused(finished, image_folder, tmp_path, capsys):
    file = finished / "weights.safetensors"
    assert "weights of cifar_resnet20 and --model.name is resnet18" in _refused(
        capsys, file, "--model.name", "resnet18"
    )
    lacking = _altered(
        finished, tmp_path, lambda tensors, about: ({k: v for k, v in tensors.items() if k != "classifier.bias"}, about)
    )
    told = _refused(capsys, lacking, "--data.path", image_folder, *_AS_TRAINED)
    assert "altered.safetensors does not fit the model: classifier.bias is missing" in told
    # a checkpoint tells no classes: its shapes do
    other = write_image_folder(tmp_path / "other", {"val": {"ant": 1, "bee": 1}})
    newest = max((finished / "checkpoints").glob("step-*.pt"))
    assert (
        "was trained on 3 classes (classifier.weight gives so many scores) and the set has 2: --data.path"
        in _refused(capsys, newest, "--data.path", other)
    )


def test_what_cannot_be_read_is_refused(finished, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((finished / "weights.safetensors").read_bytes()[:5000])
    odd = _altered(finished, tmp_path, lambda tensors, about: (tensors, about | {"classes": '"ant"'}))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("config.toml", "weights-best.safetensors"):
        shutil.copy(finished / name, unfinished)
    assert "a run's folder or a file of weights comes first" in _refused(capsys)
    assert "comes first" in _refused(capsys, "--which", "best", finished)
    assert "there is no " in _refused(capsys, tmp_path / "nowhere")
    assert "has no config.toml: it is no run's folder" in _refused(capsys, empty)
    assert "has no weights, which" in _refused(capsys, empty, "--config", finished / "config.toml")
    assert "cannot be read" in _refused(capsys, damaged)
    assert "cannot be understood" in _refused(capsys, odd)
    assert "weights are read from .safetensors, or what" in _refused(capsys, finished / "metrics.jsonl")
    assert "it has what --which best names" in _refused(capsys, unfinished)
    assert "is one file: leave it" in _refused(capsys, finished / "ema.safetensors", "--which", "ema")
    assert "invalid choice: 'worst'" in _refused(capsys, finished, "--which", "worst")
    assert "unknown option --per-clas" in _refused(capsys, finished, "--per-clas", "x.csv")
    assert "--data.eval-split names the split" in _refused(capsys, finished, "--data.eval-split", "tset")
    assert "in a folder that exists" in _refused(capsys, finished, "--per-class", tmp_path / "no" / "x.csv")
    os.mkfifo(tmp_path / "pipe")
    assert "in a folder that exists" in _refused(capsys, finished, "--per-class", tmp_path / "pipe")
    too_long = tmp_path / ("x" * 300)
    assert "cannot be written (File name too long)" in _refused(capsys, finished, "--predictions", too_long)


def test_a_full_disk_costs_no_figures_and_is_one_sentence(finished, tmp_path, monkeypatch, capsys):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evaluate, "atomic_file", full)
    file = tmp_path / "x.csv"
    assert evaluate.main([str(finished), "--predictions", str(file)]) == 2
    told = capsys.readouterr()
    assert "macro F1" in told.out and "written to" not in told.out
    says = f"{file} cannot be written (No space left on device): free some space or permit it, or name another file"
    assert told.err == f"error: {says}\n"


def test_a_reader_that_leaves_after_the_figures_costs_no_file(finished, tmp_path, monkeypatch):
    """As `| grep -m1 ^loss` does."""
    file, found = tmp_path / "x.csv", []
    monkeypatch.setattr(evaluate, "_tell", lambda *what: found.append(file.exists()))
    assert evaluate.main([str(finished), "--predictions", str(file)]) == 0
    assert found == [True]


def test_ctrl_c_ends_it_with_a_word_and_no_file(finished, tmp_path, monkeypatch, capsys):
    def interrupted(*anything, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "evaluate", interrupted)
    assert evaluate.main([str(finished), "--predictions", str(tmp_path / "x.csv")]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not list(tmp_path.iterdir())


def test_help_needs_no_run_and_lists_the_options_of_a_run_too(capsys):
    assert evaluate.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert "--per-class" in told and "ema-best" in told and "--data.path" in told
