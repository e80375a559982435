"""Whether what was said of a planted bottleneck is right, and the short form in which a table has it.

right     the planted stage is named (of one worker too few: more workers are advised; of a slow rank: it is that rank)
side      loading, the step, or the loop around them is told rightly, and not which stage of it
inside    the same of a stage inside the loader, into which this tool does not look
table     no bottleneck is named, but the stage is the largest in the tool's own table, beside its verdict
not seen  nothing is said of it, or the tool does not run what it is in
wrong     something else is named
"""

from collections.abc import Callable, Mapping
from typing import Any

from loaders.stage_writer import LOADER_STAGES

from .cases import Case

Judged = tuple[str, str]  # what it says, in short; how right that is

_NONE_NAMED = "NO_CLEAR_PERFORMANCE_BOTTLENECK"
_TRACEML_PARTS = ("forward", "backward", "optimizer")


def of_traceml(case: Case, summary: Mapping[str, Any]) -> Judged:
    """By its `final_summary.json`: the primary diagnosis, and beside "compute-bound" the largest row below it."""
    found = summary["primary_diagnosis"]
    kind, status = found["kind"], found["status"]
    average = summary["step_time"]["global"]["average"]
    parts = {name: average[f"{name}_ms"] or 0.0 for name in _TRACEML_PARTS}
    largest = max(parts, key=lambda name: parts[name])
    share = f"{largest} {parts[largest] / average['step_time_ms']:.0%}"
    says = f"{status}: {found['summary']} {found['action']}"
    if case.side == "loading":
        right = "side" if case.stage == "workers" else "inside"
        return says, right if kind == "INPUT_BOUND" else "wrong"
    if case.side == "host":
        return says, "right" if kind == "RESIDUAL_HEAVY" else "wrong"
    if case.side == "rank":
        is_it = "STRAGGLER" in kind and found["summary"].lower().startswith("r1")
        return says, "right" if is_it and kind == "COMPUTE_STRAGGLER" else "side" if is_it else "wrong"
    says = f"{says} ({share})"
    if kind == _NONE_NAMED:
        return says, "table" if largest == case.stage else "not seen"
    if kind != "COMPUTE_BOUND":
        return says, "wrong"
    return says, "right" if largest == case.stage else "side"


def of_torch(case: Case, told: Mapping[str, Any]) -> Judged:
    """By the operator with the most processor time of its own in `key_averages`."""
    says = ", ".join(
        f"{name.split('(')[0] if name.startswith('aten') else name} {share:.0%}" for name, share in told["rows"]
    )
    top = told["rows"][0][0]
    where = _side_of_operator(top)
    if case.side == "loading":
        right = "side" if case.stage == "workers" else "inside"
        return says, right if where == "loading" else "not seen" if where == "" else "wrong"
    if where == "":
        return says, "not seen"
    if case.side in ("host", "rank"):
        return says, "wrong"
    return says, "right" if where == case.stage else "wrong"


def _side_of_operator(name: str) -> str:
    """ "" is the step as a whole: it says nothing."""
    if name.startswith("ProfilerStep"):
        return ""
    if name.startswith("enumerate(DataLoader)"):
        return "loading"
    if name.startswith("Optimizer."):
        return "optimizer"
    return "backward" if "backward" in name.lower() or name.startswith("autograd") else "forward"


def of_training(case: Case, told: Mapping[str, Any]) -> Judged:
    """By the end of every training run of ours: the largest share of where its time went."""
    shares, slow = told["shares"], told["slow_rank"]
    top = max(shares, key=lambda part: shares[part])
    says = f"{top} {shares[top]:.0%}" + ("" if slow is None else f"; rank {slow} is far slower")
    if case.side == "rank":
        return says, "side" if slow == 1 else "wrong"
    if case.stage == "workers":
        return says, "side" if top in LOADER_STAGES else "wrong"
    if top == case.stage:
        return says, "right"
    return says, "side" if case.side == "loading" and top in LOADER_STAGES else "wrong"


def of_profile(case: Case, told: Mapping[str, Any]) -> Judged:
    """By the verdict of `tools/profile.py`."""
    says = told["sentence"]
    if case.side == "host":
        return says, "not seen"
    if case.stage == "workers":
        advised = [text for text in told["advice"] if "workers in place of" in text]
        says = "; ".join([says, *advised])
        return says, "right" if advised else "side" if told["side"] == "data" else "wrong"
    if case.side == "rank" and told["slow_rank"] != 1:
        return says, "wrong"
    if told["bottleneck"] == case.stage:
        return says, "right"
    side = "data" if case.side == "loading" else "compute"
    return says, "side" if told["side"] == side and told["bottleneck"] == "inconclusive" else "wrong"


JUDGES: Mapping[str, Callable[[Case, Mapping[str, Any]], Judged]] = {
    "profile": of_profile,
    "ours": of_training,
    "traceml": of_traceml,
    "torch": of_torch,
}
