"""`tools/plot.py runs` and `confusion`: what their pictures show is what the logs hold."""

import json

import numpy as np
import pytest
from commands import REPOSITORY, python

from loaders.errors import FeedrateError
from tools import plot
from tools.plots import confusion, runs

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _run(folder, losses, steps_per_epoch=4, **fields):
    """A run folder whose epochs have these losses."""
    folder.mkdir(parents=True)
    lines = []
    for epoch, loss in enumerate(losses):
        for batch in range(steps_per_epoch):
            step = epoch * steps_per_epoch + batch
            lines.append({"kind": "step", "epoch": epoch, "step": step, "loss": loss, "learning_rate": 0.1 * step})
        lines.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "num_steps": (epoch + 1) * steps_per_epoch,
                "train_loss": loss,
                "eval_loss": loss + 0.5,
                "train_top1": 1 - loss / 10,
                "eval_top1": 0.9 - loss / 10,
                "learning_rate": 0.1,
                "images_per_s": 100.0 + epoch,
                **fields,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _lines(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_a_run_that_is_writing_a_line_is_drawn_as_far_as_it_has_come(tmp_path):
    folder = _run(tmp_path / "a", [2.0, 1.0])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "epo')
    assert [record["train_loss"] for record in runs.read_history(folder).epochs] == [2.0, 1.0]


def test_every_panel_holds_the_figures_of_the_log(tmp_path):
    history = runs.read_history(_run(tmp_path / "a", [2.0, 1.0]))
    loss, top1, rate, speed = runs.figure_of(runs.grouped([history], "")).axes
    assert _lines(loss) == [([1, 2], [2.0, 1.0]), ([1, 2], [2.5, 1.5])]
    assert _lines(top1) == [([1, 2], [0.8, 0.9]), ([1, 2], [0.9 - 0.2, 0.9 - 0.1])]
    steps = range(8)
    assert _lines(rate) == [([(step + 1) / 4 for step in steps], [0.1 * step for step in steps])]
    assert _lines(speed) == [([1, 2], [100.0, 101.0])]
    assert [axes.get_title() for axes in (loss, top1, rate, speed)] == [
        "loss",
        "top-1",
        "learning rate",
        "images a second",
    ]


def test_seeds_of_one_name_are_averaged_with_a_band_over_the_epochs_they_share(tmp_path):
    folders = [_run(tmp_path / f"net-seed{i}", losses) for i, losses in enumerate([[3.0, 2.0, 1.0], [1.0, 1.0]])]
    histories = [runs.read_history(folder) for folder in [*folders, _run(tmp_path / "other", [4.0])]]
    groups = runs.grouped(histories, "-seed[0-9]+")
    assert {name: len(members) for name, members in groups.items()} == {"net": 2, "other": 1}
    at, mean, low, high = runs.mean_and_band([history.curve("train_loss") for history in groups["net"]])
    assert (at.tolist(), mean.tolist(), low.tolist(), high.tolist()) == ([1, 2], [2, 1.5], [1, 1], [3, 2])
    figure = runs.figure_of(groups)
    assert len(figure.axes[0].collections) == 2, "a band for each of net's two losses, none for a single run"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["net (n = 2)", "other"]


def test_runs_of_one_name_in_two_folders_stay_two(tmp_path):
    histories = [runs.read_history(_run(tmp_path / folder / "same", [1.0])) for folder in ("x", "y")]
    assert list(runs.grouped(histories, "")) == ["same", "same′"]


def test_a_figure_that_a_record_lacks_is_a_gap(tmp_path):
    history = runs.read_history(_run(tmp_path / "a", [2.0, 1.0], images_per_s=None))
    assert np.isnan(history.curve("images_per_s")[1]).all()
    assert np.isnan(history.curve("no_such_field")[1]).all()


def test_the_command_draws_runs_and_confusion_from_any_folder(tmp_path):
    folder = _run(tmp_path / "runs" / "a", [2.0, 1.0])
    done = python(str(REPOSITORY / "tools" / "plot.py"), "runs", "runs/a", "--out", "new/c.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "c.png").read_bytes().startswith(PNG_SIGNATURE)
    np.save(folder / "confusion.npy", np.array([[3, 1], [0, 2]]))
    report = {"epoch": 1, "classes": [{"class": "ant"}, {"class": "bee"}]}
    (folder / "evaluation.json").write_text(json.dumps(report))
    assert plot.main(["confusion", str(folder)]) == 0
    assert (folder / "confusion.png").read_bytes().startswith(PNG_SIGNATURE)


def test_the_matrix_shows_counts_and_the_share_that_is_right(tmp_path):
    figure = confusion.figure_of(np.array([[3, 1], [0, 2]]), ["ant", "bee"], 2)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "2"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert axes.get_title() == "after epoch 2: 83.33% of 6 right"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; name folders of runs"),
        ("", "holds no finished epoch yet"),
        ("no json\n", "is no log of a run"),
        ('{"other": 1}\n', "is no log of a run"),
    ],
)
def test_a_folder_that_is_no_run_gives_one_sentence_and_status_2(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert plot.main(["runs", str(tmp_path), "--out", str(tmp_path / "x.png")]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["runs"], "the following arguments are required: runs"), (["confusion", "nowhere"], "cannot be read")],
)
def test_bad_words_give_one_sentence_and_status_2(arguments, message, capsys):
    assert plot.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_bad_pattern_is_refused():
    with pytest.raises(FeedrateError, match="is no regular expression"):
        runs.grouped([], "(")
