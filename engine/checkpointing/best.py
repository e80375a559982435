"""Which epoch of a run was the best, by the metric that the run's settings name."""

import math
from typing import Any, Literal

from .state import StateHolder

BestMetric = Literal["none", "eval_top1", "eval_top5", "eval_macro_f1", "eval_loss", "train_loss"]

_SMALLER_IS_BETTER = ("eval_loss", "train_loss")


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
        """Look at an epoch's metrics record, after global step `step`; whether it is the best so far."""
        if self.metric == "none":
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

    def _is_better(self, value: float, than: float) -> bool:
        return value < than if self.metric in _SMALLER_IS_BETTER else value > than
