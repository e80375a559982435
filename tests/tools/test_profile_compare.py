"""`tools/profile.py compare` as CI runs it: its exit status and what it prints."""

import importlib.util
import json
from dataclasses import replace

import pytest
from commands import REPOSITORY, python
from shown_profiles import bare, full, slower, with_subject

from engine.profiler.record_json import write_profile


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Folders of runs: a; b is 20 % slower in its loop and c 3 %; others are not to be compared with them."""
    folder = tmp_path_factory.mktemp("reports")

    def put(name, profile):
        write_profile(folder / name / "profile" / "report.json", profile)

    ceilings = full().ceilings
    put("a", full())
    put("b", replace(full(), ceilings=replace(ceilings, loop=slower(ceilings.loop, 0.8))))
    put("c", replace(full(), ceilings=replace(ceilings, loop=slower(ceilings.loop, 0.97))))
    put("one_round", with_subject(bare(), path="data/imagenet", model="resnet50", num_samples=1_281_167))
    put("other", with_subject(full(), model="resnet18"))
    put("one_rank", with_subject(full(), world_size=1))
    put("cpu", with_subject(full(), device="cpu"))
    old = folder / "old.json"
    old.write_text(json.dumps({"schema_version": 1}))
    (folder / "torn.json").write_text('{"schema_version": ')
    return folder


@pytest.fixture(scope="module")
def command():
    """The script as a module, by its path: under its own name it would be the standard library's."""
    spec = importlib.util.spec_from_file_location("profile_command", REPOSITORY / "tools" / "profile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def words_of(reports, words):
    return ["compare", *(str(reports / word) for word in words[:2]), *words[2:]]


def test_as_a_process_it_ends_with_the_status(reports):
    result = python("tools/profile.py", *words_of(reports, ("a", "b", "--fail-if-slower", "5%")))
    assert (result.returncode, result.stderr) == (1, "") and "20% slower" in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("a", "b"), 0, "B's loop is 20% slower: 5,050 img/s in A, 4,040 in B"),
        (("a", "b", "--fail-if-slower", "5%"), 1, "B's loop is slower than A's by more than 5.0% beyond noise"),
        (("a", "b", "--fail-if-slower", "0.30"), 0, "not slower than A's by more than 30%"),
        (("a", "c", "--fail-if-slower", "5%"), 0, "not slower than A's by more than 5.0%"),
        (("b", "a", "--fail-if-slower", "5%"), 0, "25% faster"),
        (("a", "a/profile/report.json", "--fail-if-slower", "0"), 0, "No difference beyond noise"),
        (("a", "other", "--allow-different"), 0, "No difference beyond noise"),
        (("a", "one_rank"), 0, "ranks: 2 → 1"),
        (("a", "one_rank", "--fail-if-slower", "5%", "--allow-different"), 0, "not slower than A's"),
    ],
)
def test_the_exit_status_says_whether_it_became_slower(reports, command, capsys, words, status, said):
    assert command(words_of(reports, words)) == status
    told = capsys.readouterr()
    assert told.err == "" and said in told.out.replace(" \n", " ").replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "nowhere"), "nowhere holds no profile"),
        (("a", "old.json"), "is of schema version 1 and this reads"),
        (("a", "torn.json"), "torn.json is no JSON"),
        (("a", "other"), "A and B differ in model (resnet50 and resnet18)"),
        (("a", "b", "--fail-if-slower", "5"), "--fail-if-slower 5 is no share"),
        (("a", "b", "--fail-if-slower", "nan%"), "is no share"),
        (("a", "one_rank", "--fail-if-slower", "5%"), "cannot judge A and B, which differ in ranks (2 and 1)"),
        (("a", "cpu", "--fail-if-slower", "5%"), "which differ in device (cuda and cpu)"),
        (("a", "one_round", "--fail-if-slower", "5%"), "takes 3 rounds a report and there are 5 and 1"),
        (("a",), "B (see profile.py compare --help)"),
        (("a", "b", "--fail"), "unrecognized arguments: --fail"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(reports, command, capsys, words, said):
    assert command(words_of(reports, words)) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and said in told.err and len(told.err.splitlines()) == 1
