"""Which epoch of a run was the best, by the metric that the run's settings name."""

import math
from collections.abc import Collection
from typing import Any, Literal, get_args

from loaders.errors import FeedrateError

from ..nesting import is_within
from .state import StateHolder

# fmt: off
BestMetric = Literal[
    "none", "train_loss", "eval_top1", "eval_top5", "eval_macro_f1", "eval_loss",
    "eval_ema_top1", "eval_ema_top5", "eval_ema_macro_f1", "eval_ema_loss",
    "eval_swa_top1", "eval_swa_top5", "eval_swa_macro_f1", "eval_swa_loss",
]
# fmt: on


def refuse_metric_of_no_average(metric: BestMetric, averages: Collection[str]) -> None:
    """Raise FeedrateError if `metric` is of an average that is not among `averages`, those a run keeps by name."""
    missing = {f"eval_{name}_": option for name, option in _TURNED_ON_BY.items() if name not in averages}
    for prefix, option in missing.items():
        if metric.startswith(prefix):
            known = [other for other in get_args(BestMetric) if not other.startswith(tuple(missing))]
            raise FeedrateError(
                f"best_metric is {metric} and no such average is kept: {option} turns it on; without it there are"
                f" {', '.join(known)}"
            )


_TURNED_ON_BY = {"ema": "--average.ema-decay", "swa": "--average.swa-start-epoch"}


class Best(StateHolder):
    """The best epoch so far, as part of a run's state. Of equal ones the first is the best; NaN never is."""

    def __init__(self, metric: BestMetric) -> None:
        self.metric = metric
        self._found: dict[str, Any] = {}

    @property
    def step(self) -> int | None:
        """The global step after that epoch, which its checkpoint is named after; None before there is a best."""
        return self._found.get("step")

    @property
    def found(self) -> dict[str, Any]:
        """Metric, value, epoch (counted from 0) and step of the best, empty before there is one."""
        return dict(self._found)

    def consider(self, record: dict[str, Any], step: int) -> bool:
        """Look at an epoch's metrics record, after global step `step`; whether it is the best so far.

        An epoch in which an average does not exist yet has no figure of it, and is not the best.
        """
        if self.metric not in record:
            return False
        value = float(record[self.metric])
        if not math.isfinite(value) or (self._found and not self._is_better(value, self._found["value"])):
            return False
        self._found = {"metric": self.metric, "value": value, "epoch": record["epoch"], "step": step}
        return True

    def state_dict(self) -> dict[str, Any]:
        return self.found

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take up the best of a checkpoint; by another metric it would mean nothing, and the search starts anew."""
        if state_dict.get("metric") == self.metric:
            self._found = dict(state_dict)

    def goes_by(self, setting: str) -> bool:
        """Whether another value of this setting, by its name in a run's identity, makes figures that cannot be
        compared with those before."""
        return is_within(setting, "evaluation") and self.metric.startswith("eval_")

    def begin_anew(self) -> None:
        """Forget the best so far."""
        self._found = {}

    def _is_better(self, value: float, than: float) -> bool:
        return value < than if self.metric.endswith("_loss") else value > than
