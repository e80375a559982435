"""tools/bench.py profilers: what is made of what each said, and that a planted delay is found by a real run."""

import pytest
from test_bench import MACHINE, command

from tools.benchmarks.profilers.cases import CASES
from tools.benchmarks.profilers.judging import of_profile, of_torch, of_traceml, of_training
from tools.benchmarks.profilers.page import page


def traceml(kind, summary="", **ms):
    average = {"step_time_ms": 100.0, "forward_ms": 10.0, "backward_ms": 20.0, "optimizer_ms": 1.0, **ms}
    diagnosis = {"kind": kind, "status": kind, "summary": summary, "action": "Do."}
    return {"primary_diagnosis": diagnosis, "step_time": {"global": {"average": average}}}


@pytest.mark.parametrize(
    ("case", "summary", "expected"),
    [
        ("decode", traceml("INPUT_BOUND"), "inside"),
        ("decode", traceml("COMPUTE_BOUND"), "wrong"),
        ("workers", traceml("INPUT_BOUND"), "side"),
        ("forward", traceml("COMPUTE_BOUND", forward_ms=80.0), "right"),
        ("optimizer", traceml("COMPUTE_BOUND", forward_ms=80.0), "side"),
        ("backward", traceml("INPUT_BOUND", backward_ms=80.0), "wrong"),
        ("backward", traceml("NO_CLEAR_PERFORMANCE_BOTTLENECK", backward_ms=80.0), "table"),
        ("forward", traceml("NO_CLEAR_PERFORMANCE_BOTTLENECK", backward_ms=80.0), "not seen"),
        ("host", traceml("RESIDUAL_HEAVY"), "right"),
        ("host", traceml("COMPUTE_BOUND"), "wrong"),
        ("rank", traceml("COMPUTE_STRAGGLER", "r1 spent 134.2 ms in Forward, compared with 7.0 ms on r0."), "right"),
        ("rank", traceml("INPUT_STRAGGLER", "R1/N0 is slow"), "side"),
        ("rank", traceml("COMPUTE_STRAGGLER", "R0/N0 is slow"), "wrong"),
    ],
)
def test_traceml_is_judged_by_its_diagnosis_and_the_largest_part_of_compute(case, summary, expected):
    assert of_traceml(CASES[case], summary)[1] == expected


DATA_LOADER = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"


@pytest.mark.parametrize(
    ("case", "top", "expected"),
    [
        ("read", DATA_LOADER, "inside"),
        ("read", "aten::convolution_backward", "wrong"),
        ("workers", DATA_LOADER, "side"),
        ("forward", "ProfilerStep*", "not seen"),
        ("forward", "aten::mkldnn_convolution", "right"),
        ("backward", "autograd::engine::evaluate_function: MulBackward0", "right"),
        ("optimizer", "Optimizer.step#SGD.step", "right"),
        ("optimizer", "aten::mm", "wrong"),
        ("host", "ProfilerStep*", "not seen"),
        ("rank", DATA_LOADER, "wrong"),
    ],
)
def test_torchs_profiler_is_judged_by_the_operator_at_its_top(case, top, expected):
    assert of_torch(CASES[case], {"rows": [[top, 0.7], ["aten::copy_", 0.1]]})[1] == expected


@pytest.mark.parametrize(
    ("case", "shares", "slow_rank", "expected"),
    [
        ("decode", {"decode": 0.6, "read": 0.2}, None, "right"),
        ("decode", {"read": 0.6, "decode": 0.2}, None, "side"),
        ("decode", {"backward": 0.6, "decode": 0.2}, None, "wrong"),
        ("host", {"other": 0.9, "backward": 0.1}, None, "right"),
        ("workers", {"read": 0.9}, None, "side"),
        ("rank", {"backward": 0.9}, 1, "side"),
        ("rank", {"backward": 0.9}, None, "wrong"),
    ],
)
def test_a_training_run_is_judged_by_the_largest_share_of_its_time(case, shares, slow_rank, expected):
    assert of_training(CASES[case], {"shares": shares, "slow_rank": slow_rank})[1] == expected


@pytest.mark.parametrize(
    ("case", "bottleneck", "side", "slow_rank", "advice", "expected"),
    [
        ("read", "read", "data", None, [], "right"),
        ("read", "decode", "data", None, [], "wrong"),
        ("read", "inconclusive", "data", None, [], "side"),
        ("read", "inconclusive", None, None, [], "wrong"),
        ("workers", "read", "data", None, ["2 workers in place of 1 (--data.workers 2)"], "right"),
        ("workers", "read", "data", None, ["read: a faster disk"], "side"),
        ("rank", "forward", "compute", 1, [], "right"),
        ("rank", "forward", "compute", None, [], "wrong"),
        ("host", "backward", "compute", None, [], "not seen"),
    ],
)
def test_our_profile_is_judged_by_its_verdict(case, bottleneck, side, slow_rank, advice, expected):
    told = {"bottleneck": bottleneck, "side": side, "slow_rank": slow_rank, "sentence": "So.", "advice": advice}
    assert of_profile(CASES[case], told)[1] == expected


def test_a_run_of_ours_names_a_planted_stage_and_a_profiler_that_is_not_there_is_said_so(tmp_path, capsys, monkeypatch):
    from tools.benchmarks.profilers import compare

    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    words = ["profilers", "--cases", "optimizer", "--watchers", "ours,traceml,torch", "--steps", "24"]
    places = ["--work", str(tmp_path / "work"), "--report", str(tmp_path)]
    assert command().main([*words, *places]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    assert "| slow optimizer (8 ms an image, spin) | right | not installed | right |" in text
    assert "every training run of ours, at its end: optimizer " in text


def test_a_python_without_traceml_is_refused(tmp_path, capsys):
    words = ["profilers", "--traceml-python", str(tmp_path / "python"), "--report", str(tmp_path)]
    assert command().main(words) == 2
    assert "there is no command 'traceml' beside" in capsys.readouterr().err


def test_the_page_counts_what_is_right():
    said = {"profile": {"text": "Read-bound.", "judged": "right"}, "torch": {"text": "aten 50%", "judged": "inside"}}
    case = {"title": "slow storage", "planted": "14 ms an image, sleep", "side": "loading", "said": said}
    settings = {"steps": 40, "minutes": 0.5, "rounds": 3, "packages": {"torch": "2"}, "in_one_go": True}
    text = page({"date": "today", "machine": MACHINE, "settings": settings, "cases": {"read": case}})
    assert "| planted | `tools/profile.py` | `torch.profiler` |" in text
    row = "| slow storage (14 ms an image, sleep) | right | the right side; cannot see inside the loader |"
    assert row in text and "| **right, of 1** | **1** | **0** |" in text
