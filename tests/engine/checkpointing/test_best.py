"""Which epoch is the best, and that the answer survives an interruption."""

import math

import pytest

from engine.checkpointing.best import Best


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
