"""Which epoch is the best, and that the answer survives an interruption."""

import math

import pytest

from engine.checkpointing.best import Best
from engine.config import Config, RunConfig
from engine.optimisation.average import AverageConfig
from loaders.errors import FeedrateError


def _steps_found(metric, values):
    best, found = Best(metric), []
    for epoch, value in enumerate(values):
        best.consider({"epoch": epoch, metric: value}, step=10 * (epoch + 1))
        found.append(best.step)
    return found


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("eval_top1", [0.1, 0.3, 0.3, 0.2, 0.4], [10, 20, 20, 20, 50]),
        ("eval_loss", [2.0, 2.5, 2.0, 1.0, 1.5], [10, 10, 10, 40, 40]),
        ("eval_loss", [math.nan, math.inf, 1.0, math.nan], [None, None, 30, 30]),
    ],
)
def test_the_best_is_the_largest_accuracy_or_the_smallest_loss_and_of_equals_the_first(metric, values, expected):
    assert _steps_found(metric, values) == expected


def test_without_a_metric_nothing_is_the_best():
    best = Best("none")
    assert not best.consider({"epoch": 0}, 10) and best.step is None and best.state_dict() == {}


def test_one_restored_goes_on_as_if_never_interrupted_and_another_metric_begins_anew():
    best, other = Best("eval_top1"), Best("eval_loss")
    assert best.consider({"epoch": 0, "eval_top1": 0.5}, 10)
    again = Best("eval_top1")
    again.load_state_dict(best.state_dict())
    assert again.found == best.found == {"metric": "eval_top1", "value": 0.5, "epoch": 0, "step": 10}
    assert not again.consider({"epoch": 1, "eval_top1": 0.4}, 20)
    other.load_state_dict(best.state_dict())
    assert other.step is None


def test_of_an_average_only_the_epochs_that_have_it_can_be_the_best():
    best = Best("eval_swa_loss")
    assert not best.consider({"epoch": 0, "eval_loss": 0.1}, 10) and best.step is None
    assert best.consider({"epoch": 1, "eval_loss": 0.1, "eval_swa_loss": 3.0}, 20)
    assert best.consider({"epoch": 2, "eval_loss": 0.1, "eval_swa_loss": 2.0}, 30)
    assert best.found == {"metric": "eval_swa_loss", "value": 2.0, "epoch": 2, "step": 30}


@pytest.mark.parametrize(
    ("metric", "average", "option"),
    [
        ("eval_ema_top1", AverageConfig(swa_start_epoch=1), "--average.ema-decay"),
        ("eval_swa_loss", AverageConfig(ema_decay=0.9), "--average.swa-start-epoch"),
    ],
)
def test_a_metric_of_an_average_that_is_not_kept_is_refused_with_those_there_are(metric, average, option):
    with pytest.raises(FeedrateError) as refused:
        Config(average=average, run=RunConfig(best_metric=metric))
    said, others = str(refused.value).split("without it there are ")
    assert f"best_metric is {metric} and no such average is kept: {option} turns it on" in said
    there = "swa" if "ema" in metric else "ema"
    plain = ["none", "train_loss", "eval_top1", "eval_top5", "eval_macro_f1", "eval_loss"]
    assert others.split(", ") == plain + [f"eval_{there}_{name}" for name in ("top1", "top5", "macro_f1", "loss")]
    both = AverageConfig(ema_decay=0.9, swa_start_epoch=1)
    assert Config(average=both, run=RunConfig(best_metric=metric)).run.best_metric == metric
