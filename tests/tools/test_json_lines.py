"""Files that grow a line at a time, killed in the middle of one."""

import pytest

from tools.benchmarks import json_lines


def test_values_come_back_in_order(tmp_path):
    path = tmp_path / "values.jsonl"
    assert json_lines.read(path) == []
    json_lines.append(path, [{"a": 1.5}, ["b", None]])
    json_lines.append(path, [])
    json_lines.append(path, ["ü"])
    assert json_lines.read(path) == [{"a": 1.5}, ["b", None], "ü"]


@pytest.mark.parametrize("left", ["", '{"a": ', "x" * 200_000])
def test_what_a_kill_left_of_a_line_is_not_read_and_hides_nothing_that_follows(tmp_path, left):
    path = tmp_path / "values.jsonl"
    json_lines.append(path, [1, 2])
    with open(path, "a") as file:
        file.write(left)
    assert json_lines.read(path) == [1, 2]
    json_lines.append(path, [3])
    assert json_lines.read(path) == [1, 2, 3]


def test_a_first_line_that_was_cut_is_nothing(tmp_path):
    path = tmp_path / "values.jsonl"
    path.write_text("[1, 2")
    json_lines.append(path, ["a"])
    assert path.read_text() == '"a"\n'


def test_records_of_a_run_stand_by_their_kind(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert json_lines.by_kind(path)["epoch"] == []
    step, epoch, later = ({"kind": kind, "step": step} for kind, step in (("step", 1), ("epoch", 2), ("step", 3)))
    json_lines.append(path, [step, epoch, later])
    assert json_lines.by_kind(path) == {"step": [step, later], "epoch": [epoch]}
