"""The profiler's self-test: a sample of its cells, measured; and all that is made of outcomes, on made-up ones.

A cell that other programs disturb, or whose verdict names nothing, is no failure here; a wrong name is.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import psutil
import pytest
from commands import REPOSITORY, run, start, wait_for
from made_profiles import rank, stage
from rich.console import Console

from engine.profiler.record import COMPUTE_STAGES, STAGES
from engine.profiler.self_test import cells as cells_module
from engine.profiler.self_test.cells import NOTHING, PLANTED, SLOW_RANK, Cell, Outcome, matrix
from engine.profiler.self_test.planting import Effort
from engine.profiler.self_test.scores import confusion, judged, label, score
from engine.profiler.self_test.slack import costs_of, longer, loop_us, slack_us, slow_rank_slack_us
from loaders.choose import choose_loader
from loaders.errors import FeedrateError
from tools.benchmarks import rounds
from tools.profiling import self_test, self_test_plot, self_test_report, self_test_runs

SHORT = Effort(rounds=5, batches=8, least_turn_s=0.1)


def outcome(planted, size, named, slow_rank=None, kind="sleep", base="forward", injected=1000.0, **fields):
    ranks = 2 if planted == SLOW_RANK else 1
    return Outcome(
        Cell("turbo", 1, planted, kind, size, ranks), base, 1000.0, injected, named, slow_rank, 1.0, "",
        wall_before_us=50.0, wall_after_us=50.0 + injected, loop_before_us=2000.0, loop_after_us=2000.0 + injected / 2,
        loop_predicted_us=2000.0 + injected / 2, **fields,
    )  # fmt: skip


# ---- a sample of the matrix, measured


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return self_test_runs.write_images(tmp_path_factory.mktemp("self-test"))


SAMPLE = {
    "turbo": [
        Cell("turbo", 1, "read", "sleep", 2.0),
        Cell("turbo", 1, "read", "sleep", 0.5),
        Cell("turbo", 1, "decode", "spin", 2.0),
        Cell("turbo", 1, "forward", "sleep", 2.0),
        Cell("turbo", 1, NOTHING),
    ],
    "torchvision": [Cell("torchvision", 0, "augment", "sleep", 2.0)],
    "slow rank": [Cell("turbo", 0, SLOW_RANK, "sleep", 2.0, 2)],
}


@pytest.mark.parametrize("group", SAMPLE)
def test_what_is_planted_is_named_or_nothing_is(group, data, tmp_path):
    (of_group,) = self_test_runs.groups_of(SAMPLE[group], data, "cpu", SHORT)
    found = list(self_test_runs.run(of_group, tmp_path / "log"))
    assert {one.cell for one in found} == set(SAMPLE[group])
    for one in found:
        told = f"{one.cell.key}: {label(one)}, others used {one.others_cpus} processors; {one.sentence}"
        assert not one.note, one.note
        assert one.is_disturbed or judged(one) != "wrong", told
        if one.cell.planted != NOTHING:
            # a sleep takes as long as asked or longer; what the stage took before is noise beside it, and in the slope
            assert one.is_disturbed or one.wall_after_us >= 0.999 * one.injected_us, told
            assert one.is_disturbed or one.wall_before_us < one.injected_us, told
            assert one.slack_us == pytest.approx(one.injected_us / one.cell.size)


def test_a_stage_that_a_loader_does_not_show_is_told_and_not_guessed(data, tmp_path):
    try:
        choose_loader("dali")
    except FeedrateError as error:
        pytest.skip(str(error))
    (group,) = self_test_runs.groups_of([Cell("dali", 1, "augment", "sleep", 2.0)], data, "cpu", SHORT)
    (found,) = self_test_runs.run(group, tmp_path / "log")
    assert found.note == "loader 'dali' shows no stage 'augment'" and found.named is None


def test_a_group_that_fails_says_what_and_where(tmp_path):
    (group,) = self_test_runs.groups_of([Cell("turbo", 0, NOTHING)], tmp_path / "nowhere", "cpu", SHORT)
    with pytest.raises(FeedrateError, match=r"cells such as turbo/0/nothing failed: .*log\)"):
        list(self_test_runs.run(group, tmp_path / "log"))


# ---- the slack, beside a plain account of who does what


def a_rank():
    return rank(
        stages=[
            stage("read", "worker", 100.0, ceiling=2e6 / 100),  # two workers
            stage("decode", "worker", 300.0, ceiling=2e6 / 300),
            stage("augment", "worker", None),
            stage("collate", "loop", 20.0, ceiling=1e6 / 20),
            stage("forward", "loop", 400.0),
            stage("backward", "loop", 500.0),
            stage("sync", "loop", 9000.0),
            stage("other", "loop", 9000.0),
        ]
    )


def limiting(costs) -> str:
    """The stage that holds the loop back: the longest of the busiest hands."""
    busiest = max(costs.values(), key=lambda stages: sum(stages.values()))
    return max(busiest, key=lambda name: busiest[name])


def test_costs_are_shared_by_workers_and_the_busiest_hands_limit():
    costs = costs_of(a_rank(), 1)
    assert costs == {
        "worker": {"read": 50.0, "decode": 150.0},
        "loop": {"collate": 20, "forward": 400, "backward": 500},
    }
    assert loop_us(costs) == 920 and limiting(costs) == "backward"
    assert limiting(longer(costs, "decode", 800.0)) == "decode" and loop_us(longer(costs, "decode", 800.0)) == 1000


@pytest.mark.parametrize("name", ["read", "decode", "collate", "forward"])
def test_below_the_slack_the_stage_does_not_limit_and_above_it_does(name):
    measured = a_rank()
    slack, share = slack_us(measured, name, 1), 2 if name in ("read", "decode") else 1
    for factor, limits in ((0.99, False), (1.01, True)):
        costs = longer(costs_of(measured, 1), name, factor * slack / share)
        assert (limiting(costs) == name) is limits
    assert slack_us(measured, "augment", 1) is None and slack_us(measured, "pin", 1) is None


def test_copying_to_a_gpu_is_beside_what_it_computes():
    stages = (stage("copy", "device", 300.0), stage("collate", "loop", 20.0), stage("forward", "device", 500.0))
    assert loop_us(costs_of(rank(stages=stages), world_size=1)) == 500


def test_a_rank_has_the_slack_that_the_verdict_allows_it():
    assert slow_rank_slack_us((rank(own_us=900.0), rank(own_us=1000.0))) == pytest.approx(150.0)


# ---- the matrix


def test_the_whole_matrix_has_each_cell_once_and_an_unchanged_run_a_group():
    loaders = self_test.LOADERS
    cells = matrix(loaders, PLANTED, cells_module.KINDS, cells_module.SIZES, range(5))
    assert len({cell.key for cell in cells}) == len(cells) == 4 * 5 * (8 * 2 * 3 + 2)
    unchanged = [cell for cell in cells if cell.planted == NOTHING and cell.num_ranks == 1]
    assert len(unchanged) == 20 and {cell.baseline for cell in unchanged} == {"step", "loader"}
    assert {cell.planted for cell in cells if cell.num_ranks == 2} == {SLOW_RANK, NOTHING}
    assert all(cell.baseline == ("step" if cell.planted in ("read", "decode", "augment", "collate") else "loader")
               for cell in cells if cell.num_ranks == 1 and cell.planted != NOTHING)  # fmt: skip


def test_cells_and_outcomes_survive_being_written():
    one = outcome(SLOW_RANK, 2.0, "optimizer", 1)
    assert Outcome.from_json(json.loads(json.dumps(one.as_json()))) == one
    (group,) = self_test_runs.groups_of([one.cell], Path("/data"), "cpu", SHORT)
    assert self_test_runs.Group.from_json(group.as_json()) == group


# ---- scoring


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (outcome("read", 2.0, "read"), "right"),
        (outcome("read", 2.0, "forward"), "wrong"),
        (outcome("read", 2.0, "decode"), "wrong"),
        (outcome("read", 2.0, "inconclusive"), "abstained"),
        (outcome("read", 0.5, "forward"), "right"),
        (outcome("read", 0.5, "read"), "wrong"),
        (outcome("read", 0.5, "inconclusive"), "abstained"),
        (outcome("read", 1.0, "read"), "right"),
        (outcome("read", 1.0, "forward"), "right"),
        (outcome("read", 1.0, "inconclusive"), "right"),
        (outcome("read", 1.0, "decode"), "wrong"),
        (outcome(NOTHING, 0.0, "forward"), "right"),
        (outcome(NOTHING, 0.0, "backward"), "wrong"),
        (outcome(SLOW_RANK, 2.0, "optimizer", 1), "right"),
        (outcome(SLOW_RANK, 2.0, "optimizer", 0), "wrong"),
        (outcome(SLOW_RANK, 2.0, "sync"), "wrong"),
        (outcome(SLOW_RANK, 2.0, "forward"), "wrong"),
        (outcome(SLOW_RANK, 2.0, "forward", 1), "wrong"),
        (outcome(SLOW_RANK, 0.5, "optimizer", 1), "wrong"),
        (outcome("optimizer", 2.0, "optimizer", 1), "wrong"),
    ],
)
def test_a_verdict_is_right_wrong_or_none(one, told):
    assert judged(one) == told


def many(planted, size, right, wrong, named, wrongly, **fields):
    return [outcome(planted, size, named, **fields)] * right + [outcome(planted, size, wrongly, **fields)] * wrong


def kept(outcomes):
    return [promise.kept for promise in score(outcomes).promises()]


def test_promises_break_just_where_they_say():
    good = [
        *many("read", 2.0, 19, 1, "read", "forward", injected=2000.0),
        *many("read", 0.5, 9, 0, "forward", ""),
        outcome(NOTHING, 0.0, "forward"),
    ]
    assert kept(good) == [True] * 4
    assert kept([*good, outcome("read", 2.0, "inconclusive")]) == [False, True, True, True]  # naming nothing is no name
    assert kept([*good, outcome("read", 0.5, "inconclusive")]) == [True] * 4
    assert kept([*good, outcome("read", 0.5, "read")]) == [True, False, True, True]
    assert kept([*good, outcome(NOTHING, 0.0, "inconclusive")]) == [True] * 4
    assert kept([*good, outcome(NOTHING, 0.0, "read")]) == [True, True, False, True]
    assert kept([]) == [None] * 4


@pytest.mark.parametrize(("slope", "is_kept"), [(0.89, False), (0.91, True), (1.09, True), (1.11, False)])
def test_recovered_delays_are_fitted_with_what_every_delay_costs_apart(slope, is_kept):
    found = [
        replace(outcome("read", 2.0, "read", injected=x), wall_after_us=50.0 + 70.0 + slope * x)
        for x in (500.0, 1000.0, 3000.0, 4000.0)
    ]
    line = score(found).recovered
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((slope, 70.0, 1.0))
    assert line.low <= line.slope + 1e-9 and line.high >= line.slope - 1e-9 and line.num_points == 4
    assert kept(found)[3] is is_kept


def test_cells_that_were_disturbed_or_could_not_be_planted_count_for_nothing_and_are_told():
    disturbed = outcome("read", 0.5, "read", others_cpus=1.2)
    unseen = Outcome(Cell("dali", 0, "decode", "sleep", 2.0), note="loader 'dali' shows no stage 'decode'")
    scores = score([disturbed, unseen, outcome("read", 0.5, "forward")])
    assert (scores.disturbed.wrong, scores.unseen, scores.below.total, scores.above.total) == (1, 1, 1, 0)
    assert scores.disturbed.total == 1 and scores.counted == {"turbo, seed 1": 1}
    console = Console(file=StringIO(), width=160)
    self_test_report.show(console, [disturbed, unseen], scores)
    assert "1 cells do not count" in console.file.getvalue() and "1 cells could not be" in console.file.getvalue()


# ---- what is shown


def some_outcomes():
    return [
        *many("read", 2.0, 3, 1, "read", "decode", injected=2000.0),
        *many("forward", 0.5, 2, 0, "decode", "", base="decode", kind="spin", injected=500.0),
        outcome(SLOW_RANK, 2.0, "optimizer", 0),
        outcome(NOTHING, 0.0, "forward"),
    ]


def test_the_matrix_shows_every_outcome_once_under_its_name(tmp_path):
    found = some_outcomes()
    assert confusion(found) == Counter(
        {("read", "read"): 3, ("read", "decode"): 1, ("forward", "decode"): 2, (NOTHING, "forward"): 1,
         (SLOW_RANK, "rank 0: optimizer"): 1}
    )  # fmt: skip
    shown = {
        (planted, name): count
        for _, rows, names in self_test_report.tables(found)
        for planted, counts, _ in rows
        for name, count in zip(names, counts, strict=True)
        if count
    }
    assert shown == dict(confusion(found))


def test_in_a_file_the_matrix_is_whole_however_many_names_it_has():
    named = [*STAGES, "inconclusive"]
    found = [item for name in named for item in many("read", 2.0, 1, 0, name, name)]
    console = Console(file=StringIO(), width=80)
    self_test_report.show(console, found, score(found))
    heads = [line for line in console.file.getvalue().splitlines() if line.startswith("planted")]
    assert heads and all(heads[0].split().count(name) == 1 for name in named)


def test_the_report_is_a_page_a_picture_and_all_figures(tmp_path):
    found = some_outcomes()
    scores = score(found)
    machine = {"command": "c", "commit": "abc", "cpus": 2, "processor": "p", "python": "3", "versions": {"torch": "2"}}
    told = self_test_report.as_json(found, scores, machine, "2026-01-01", 9)
    paths = {ending: tmp_path / f"self_test.{ending}" for ending in ("md", "json", "png")}
    self_test_report.write(paths, found, told)
    page = paths["md"].read_text()
    assert "8 of 9 cells" in page and "BROKEN" in page and "`turbo/1/read/sleep/2` was taken for decode" in page
    assert [Outcome.from_json(cell) for cell in json.loads(paths["json"].read_text())["cells"]] == found
    assert sum('"cell":' in line for line in paths["json"].read_text().splitlines()) == len(found)  # a line each
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    panels = self_test_plot.figure_of(found).axes
    assert [panel.get_title() for panel in panels[:3]] == [
        "0.5 × the slack (2 cells)", "1 × the slack (0 cells)", "2 × the slack (5 cells)",
    ]  # fmt: skip


# ---- the command


def test_what_was_measured_is_not_measured_again_unless_it_was_disturbed_or_is_of_other_code(tmp_path, monkeypatch):
    monkeypatch.setattr(self_test, "code_sha256", lambda folders: "one")
    cells = [Cell("turbo", 0, stage, "sleep", 2.0) for stage in ("read", "decode", "augment")]
    results = self_test.Results(tmp_path / "cells.jsonl")
    results.add(replace(outcome("read", 2.0, "read"), cell=cells[0]))
    results.add(replace(outcome("decode", 2.0, "read", others_cpus=0.9), cell=cells[1]))
    with open(tmp_path / "cells.jsonl", "a") as file:
        file.write('{"code": "one", "outco')  # it was killed here
    again = self_test.Results(tmp_path / "cells.jsonl")
    assert again.missing(cells) == cells[1:] and len(again.of(cells)) == 2
    monkeypatch.setattr(self_test, "code_sha256", lambda folders: "other")
    assert self_test.Results(tmp_path / "cells.jsonl").missing(cells) == cells


def test_outcomes_hang_on_code_that_is_there():
    assert all((REPOSITORY / place).exists() for place in self_test._CODE)
    of_each = [rounds.code_sha256([place]) for place in self_test._CODE]
    assert len({*of_each, rounds.code_sha256([])}) == len(of_each) + 1  # each is read, files as folders


def test_after_a_line_that_was_cut_the_next_one_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(self_test, "code_sha256", lambda folders: "one")
    path = tmp_path / "cells.jsonl"
    path.write_text('{"code": "one", "outco')
    one = outcome("read", 2.0, "read")
    self_test.Results(path).add(one)
    assert self_test.Results(path).of([one.cell]) == [one]


def command(arguments, monkeypatch, outcomes):
    """The command with a run that gives made-up outcomes; an exception among them is raised."""

    def fake_run(group, log):
        for one in outcomes:
            if isinstance(one, BaseException):
                raise one
            if one.cell in group.cells:
                yield one

    monkeypatch.setattr(self_test, "run_cells", fake_run)
    monkeypatch.setattr(self_test, "write_images", lambda folder: folder)
    console = Console(file=StringIO(), width=200)
    return self_test.run(arguments, console), console.file.getvalue()


def test_the_exit_status_says_whether_promises_are_kept_and_an_interruption_loses_nothing(tmp_path, monkeypatch):
    words = ["--loaders", "turbo", "--planted", "read", "--kinds", "sleep", "--seeds", "1", "--out", str(tmp_path)]
    good = [outcome("read", size, named, injected=1000 * size) for size, named in ((0.5, "forward"), (2.0, "read"))]
    assert command([*words, "--quick"], monkeypatch, [good[0], KeyboardInterrupt()])[0] == 130
    status, shown = command([*words, "--quick"], monkeypatch, good[1:])
    assert status == 0 and "2 cells, of which 1 are measured" in shown and "kept: above the slack" in shown
    one = ["--loaders", "turbo", "--planted", "collate", "--kinds", "sleep", "--seeds", "1", "--sizes", "2"]
    noisy = outcome("collate", 2.0, "collate", others_cpus=1.0)
    assert command([*one, "--out", str(tmp_path)], monkeypatch, [noisy])[0] == 1  # not a promise was tested
    status, shown = command(words, monkeypatch, [outcome("read", 1.0, "decode")])
    assert status == 0 and "just the slack" in shown  # at the slack nothing is promised
    bad = [outcome("augment", 0.5, "augment"), outcome("augment", 2.0, "forward")]
    status, shown = command([*words, "--planted", "augment"], monkeypatch, bad)
    assert status == 1 and "BROKEN: below the slack" in shown and "wrong: turbo/1/augment/sleep/2 → forward" in shown


def test_being_ended_ends_the_processes_that_measure_too(data, tmp_path):
    words = ["--loaders", "turbo", "--planted", "read", "--out", str(tmp_path), "--data", str(data.parent)]
    process = start([sys.executable, "tools/profile.py", "self-test", *words])
    wait_for(tmp_path / "log", process)
    while not (children := psutil.Process(process.pid).children()):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted: the same command goes on" in told
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loaders", "turbot"], "'turbot' is unknown: did you mean turbo"),
        (["--planted", "reed"], "'reed' is unknown: did you mean read"),
        (["--sizes", "3"], "'3' is unknown: known are 0.5, 1, 2"),
        (["--seeds", "-1"], "--seeds: "),
        (["--quick", "--sizes", "1"], "--quick leaves out --sizes 1"),
        (["--report", "/nowhere"], "/nowhere is no folder"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_bad_options_are_one_sentence(words, said, tmp_path):
    with pytest.raises(FeedrateError) as raised:
        self_test.run([*words, "--out", str(tmp_path)], Console(file=StringIO()))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_bad_options_end_the_command_with_status_2():
    result = run([sys.executable, "tools/profile.py", "self-test", "--loaders", "turbot"], REPOSITORY)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_every_planted_stage_is_one_that_can_be():
    assert set(PLANTED) - {SLOW_RANK, NOTHING} <= {"read", "decode", "augment", "collate", *COMPUTE_STAGES}
