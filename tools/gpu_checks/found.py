"""What the results of each part say, as lines for the report. Each reads the folder that the part wrote to.

All raise FeedrateError where there are no results, or they say that something is wrong.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from loaders.errors import FeedrateError

from ..benchmarks.device.cifar_speed import sentence
from ..benchmarks.device.page import share_text
from ..benchmarks.process import last_said
from ..benchmarks.report import rate_text, shown, spread_text
from .part import Finding

LOG = "part.out"  # what the part's command printed
TESTS, DRY_TESTS = "tests.xml", "tests-dry.xml"  # of tests on a GPU, where all of them skipped would be wrong
_MOST_NAMES = 12
_ENDED_TEST = r"^(\S+\.py::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b"


def last_line(folder: Path) -> Sequence[Finding]:
    """The command's last line."""
    return [Finding("", last_said(_log(folder)))]


def tests(folder: Path) -> Sequence[Finding]:
    """How many tests passed, why some were skipped, and which failed. FeedrateError where none ran on the GPU.

    pytest writes its results at its end: where it was ended before, its log says what had passed, and what it was at.
    """
    is_dry = (folder / DRY_TESTS).exists()
    if not (is_dry or (folder / TESTS).exists()):
        return _tests_so_far(folder)
    suite = ElementTree.parse(folder / (DRY_TESTS if is_dry else TESTS)).getroot().find("testsuite")
    if suite is None:
        raise FeedrateError("pytest wrote no results")
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    reasons = {node.get("message", "") for node in suite.iter("skipped")}
    failed = [case.get("name", "") for case in suite if {child.tag for child in case} & {"failure", "error"}]
    if not (passed or failed or is_dry):
        raise FeedrateError(f"no test ran: {'; '.join(sorted(reasons)) or 'none was found'}")
    told = f"{passed} passed, {len(failed)} failed, {count['skipped']} skipped"
    findings = [Finding("tests", told + (f" ({'; '.join(sorted(reasons))})" if reasons else ""))]
    return [*findings, *(Finding("failed", name) for name in failed[:_MOST_NAMES])]


def _tests_so_far(folder: Path) -> Sequence[Finding]:
    """By the lines of `pytest -v`: a test's name, and behind it, once it has ended, what became of it."""
    ended = dict(re.findall(_ENDED_TEST, _log(folder), re.MULTILINE))
    begun = [
        name for name in re.findall(r"^\S+\.py::.*", _log(folder), re.MULTILINE) if not re.match(_ENDED_TEST, name)
    ]
    if not (ended or begun):
        raise FeedrateError("pytest was ended before its first test")
    failed = [name.split("::")[-1] for name, how in ended.items() if how in ("FAILED", "ERROR")]
    count = Counter(ended.values())
    told = f"{count['PASSED']} passed, {len(failed)} failed, {count['SKIPPED']} skipped before it was ended"
    findings = [Finding("tests", told), *(Finding("failed", name) for name in failed[:_MOST_NAMES])]
    return [*findings, *(Finding("ended in", name.split("::")[-1].strip()) for name in begun[-1:])]


def sanitizer(folder: Path) -> Sequence[Finding]:
    """compute-sanitizer's own summary."""
    summary = re.findall(r"ERROR SUMMARY: .*", _log(folder))
    if not summary:
        raise FeedrateError("compute-sanitizer gave no summary")
    return [Finding("memcheck", summary[-1]), *tests(folder)]


def ceilings(folder: Path) -> Sequence[Finding]:
    """Of each model and variant img/s, and how many times torchvision's loop with AMP."""
    findings = []
    for model, measured in _result(folder, "ceilings")["models"].items():
        for one in measured["variants"].values():
            times = one["times_reference"]
            compared = f"; {spread_text(times, '×')} torchvision's loop with AMP" if times else ""
            findings.append(Finding(f"{model}, {one['title']}", f"{_rate(one['s_per_image'])}{compared}"))
        findings += [Finding(f"{model}, {name}", f"skipped: {why}") for name, why in measured["skipped"].items()]
    return findings


def end_to_end(folder: Path) -> Sequence[Finding]:
    """The step's ceiling; of each form and loader its own ceiling and the share that training reaches."""
    measured = _result(folder, "end_to_end")
    settings = measured["settings"]
    images = f"{settings['images']}{' (generated)' if settings['is_generated'] else ''}"
    findings = [Finding(f"{settings['model']}, the step alone; images: {images}", _rate(measured["ceiling"]))]
    for form, told in measured["forms"].items():
        for loader, one in told["loaders"].items():
            alone = f"loader alone {_rate(one['alone'])}; " if one["alone"] else ""
            together = f"{alone}training {_rate(one['together'])}; share {share_text(one['share'])}"
            slower = f"; {one['slower_because']}" if one["slower_because"] else ""
            findings.append(Finding(f"{form}, {loader}", together + slower))
        findings += [Finding(f"{form}, {loader}", f"skipped: {why}") for loader, why in told["skipped"].items()]
    return findings


def cifar(folder: Path) -> Sequence[Finding]:
    """Of each side seconds and accuracy; how long ours takes to the other's mean accuracy."""
    measured = _result(folder, "cifar_speed")
    findings = []
    for name, side in measured["sides"].items():
        accuracy = f"{side['final_mean']:.2%}"
        if side["final_deviation"] is not None:
            accuracy += f" ± {side['final_deviation']:.2%}"
        seconds = spread_text(side["train_s"], "s")
        findings.append(Finding(name, f"{seconds} of training, {accuracy}, n = {side['final']['n']}"))
    findings += [Finding(name, f"skipped: {why}") for name, why in measured["skipped"].items()]
    findings += [Finding(name, f"ended early: {why}") for name, why in measured["ended_early"].items()]
    return [*findings, Finding("compared", sentence(measured))]


def utilisation(folder: Path) -> Sequence[Finding]:
    """Ours beside dmon's."""
    findings = []
    for name, one in _result(folder, "utilisation")["cases"].items():
        ours, smi = shown(one["share"], ".1%"), shown(one["smi_share"], ".1%")
        memory = "n/a" if one["memory_bytes"] is None else f"{one['memory_bytes'] / 1e6:,.0f} MB"
        smi_memory = "n/a" if one["smi_memory_bytes"] is None else f"{one['smi_memory_bytes'] / 1e6:,.0f} MB"
        told = (
            f"ours {ours}, nvidia-smi {smi} (n = {one['num_samples']}); memory: allocated {memory}, in use {smi_memory}"
        )
        findings.append(Finding(name, told))
    return findings


def self_test(folder: Path) -> Sequence[Finding]:
    """Each promise and what was found."""
    marks = {True: "kept", False: "**not kept**", None: "not told"}
    promises = _result(folder, "self_test")["promises"]
    return [Finding(promise["text"], f"{promise['found']}: {marks[promise['kept']]}") for promise in promises]


def accuracy(folder: Path) -> Sequence[Finding]:
    """Of each run accuracy, speed and waiting; and whether loaders differ by more than seeds."""
    from ..benchmarks.accuracy.page import verdict

    measured = _result(folder, "accuracy")
    findings = [
        Finding(
            f"{run['loader']}, seed {run['seed']}",
            f"top-1 {run['eval_top1']:.2%}, {shown(run['images_per_s'], ',.0f')} img/s,"
            f" data-wait {shown(run['data_wait_share'], '.1%')},"
            f" {run['train_s']:.1f} s of training",
        )
        for run in measured["runs"]
    ]
    findings += [Finding(name, f"skipped: {why}") for name, why in measured["skipped"].items()]
    return [*findings, Finding("agreement", verdict(measured["agreement"]))]


def overhead(folder: Path) -> Sequence[Finding]:
    """What the clocks cost of time and of processor time, with intervals."""
    findings = []
    for case in _result(folder, "profiler_overhead")["cases"].values():
        wall, cpu = (case["costs"][key] for key in ("s_per_image", "cpu_s_per_image"))
        told = f"{_cost(wall)} of the time, {_cost(cpu)} of the processor time (n = {wall['n']} pairs)"
        findings.append(Finding(case["title"], told))
    return findings


def _cost(cost: dict[str, float]) -> str:
    return f"{cost['median'] - 1:+.2%} ({cost['low'] - 1:+.2%} … {cost['high'] - 1:+.2%})"


def _rate(s_per_image: dict[str, Any]) -> str:
    return f"{rate_text(s_per_image)} img/s, n = {s_per_image['n']}"


def _result(folder: Path, name: str) -> dict[str, Any]:
    found = sorted(folder.glob(f"{name}*.json"))
    if not found:
        raise FeedrateError(f"it wrote no {name}*.json")
    content: dict[str, Any] = json.loads(found[-1].read_text())
    return content


def _log(folder: Path) -> str:
    return (folder / LOG).read_text(errors="replace")
