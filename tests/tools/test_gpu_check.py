"""tools/gpu_check.py: parts that fail or hang cost no other part anything; going on, leaving out, and the report."""

import importlib.util
import json
import re
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import REPOSITORY, python
from test_bench import command as bench

from loaders.errors import FeedrateError
from tools.gpu_checks import found, needed, runner
from tools.gpu_checks.page import page
from tools.gpu_checks.part import Finding, Part, Setting
from tools.gpu_checks.parts import PARTS
from tools.gpu_checks.record import Outcome, Record
from tools.profiling import self_test

SCRIPT = str(REPOSITORY / "tools" / "gpu_check.py")
MACHINE = {"command": "c", "date": "today", "commit": "abc", "gpus": ["NVIDIA H200"], "cpus": 2, "processor": "p"} | {
    "memory_gb": 3.0,
    "python": "3",
    "torch_cuda": "13.0",
    "versions": {"torch": "9", "unknown": "1"},
}


def part(code, minutes=1.0, limit_s=60.0, read=lambda folder: [Finding("a figure", "1 img/s")], missing=""):
    """A part that runs this Python, in which `folder` is where its results go."""

    def command(setting, folder):
        return [sys.executable, "-c", f"folder = {str(folder)!r}\n{code}"]

    return Part("a title", minutes, limit_s, command, read, lambda setting: missing)


GOOD = "open(folder + '/x.json', 'w').write('{\"rounds\": [1, 2]}'); open(folder + '/../ran', 'a').write('x')"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """check(parts, *words): the command's exit status, in a dry run on a machine that is not asked anything."""
    spec = importlib.util.spec_from_file_location("gpu_check_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_machine", lambda commit: {**MACHINE, "commit": commit})
    monkeypatch.setattr(module, "write_photos", lambda *words, **more: None)
    (tmp_path / "out").mkdir()

    def run(parts, *words, work="work"):
        return module.main(["--dry-run", "--work", str(tmp_path / work), "--out", str(tmp_path / "out"), *words], parts)

    run.module = module
    return run


def report(tmp_path):
    (path,) = (tmp_path / "out").glob("gpu_*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_what_crashes_hangs_or_cannot_be_read_is_noted_and_the_next_goes_on(check, tmp_path, capsys):
    def unreadable(folder):
        raise FeedrateError("half of it is missing")

    parts = {
        "crashes": part(
            "import os, sys; print('before', flush=True); sys.stderr.write('no such thing\\n'); os.abort()"
        ),
        "fails": part("import sys; sys.exit('it is broken')"),
        "prints": part("import sys; print('a reason'); sys.exit(3)"),
        "hangs": part("import time; print('begun', flush=True); time.sleep(600)", limit_s=1.5),
        "unreadable": part(GOOD, read=unreadable),
        "absent": part(GOOD, missing="it is not here"),
        "good": part(GOOD),
    }
    started_s = time.monotonic()
    assert check(parts, "--commit", "abcdef") == 1
    assert time.monotonic() - started_s < 300
    told = capsys.readouterr().out
    measured, text = report(tmp_path)
    outcomes = measured["parts"]
    assert {name: one["status"] for name, one in outcomes.items()} == {
        **dict.fromkeys(("crashes", "fails", "prints", "hangs", "unreadable"), "failed"),
        "absent": "left out",
        "good": "done",
    }
    assert outcomes["crashes"]["note"] == "ended with status -6: no such thing"
    assert "before" in outcomes["crashes"]["log"] and "no such thing" in outcomes["crashes"]["log"]
    assert outcomes["fails"]["note"] == "ended with status 1: it is broken"
    assert outcomes["prints"]["note"] == "ended with status 3: a reason"
    assert outcomes["hangs"]["note"] == "ended after 2 s, its limit here" and outcomes["hangs"]["seconds"] < 300
    assert outcomes["unreadable"]["note"] == "its results cannot be read: half of it is missing"
    assert outcomes["absent"]["note"] == "it is not here" and outcomes["good"]["note"] == outcomes["good"]["log"] == ""
    assert outcomes["good"]["measured"] == {"rounds": [1, 2]} and outcomes["good"]["code_sha256"]
    assert measured["machine"]["commit"] == "abcdef" and measured["is_dry"]
    assert "1 of 7 parts done, 5 failed, 1 cannot run here" in told and "a figure: 1 img/s" in told
    assert "| `hangs` | failed |" in text and "ended after 2 s, its limit here |" in text
    assert "| a figure | 1 img/s |" in text and "dry run" in text and "commit `abcdef`" in text


def test_the_same_command_goes_on_with_what_is_missing_and_what_failed_waits_to_be_asked_for(
    check, tmp_path, capsys, monkeypatch
):
    flag = tmp_path / "mended"
    parts = {
        "broken": part(f"import os, sys; sys.exit(0 if os.path.exists({str(flag)!r}) else 'not yet')"),
        "good": part(GOOD),
        "late": part(GOOD, minutes=4.0),
    }
    ran = tmp_path / "work" / "parts" / "ran"
    assert check(parts, "--minutes", "3", "--commit", "old") == 1
    assert "left out for want of time: late" in capsys.readouterr().out
    assert "| `late` | no time |" in report(tmp_path)[1]
    assert ran.read_text() == "x"
    flag.touch()
    assert check(parts, "--minutes", "10", "--commit", "old") == 1
    told = capsys.readouterr().out
    assert "1 done before on this very code: good" in told and "1 failed before on this very code: broken" in told
    assert "[1 of 1] late" in told
    assert check(parts, "--retry", "--commit", "old") == 0
    assert "[1 of 1] broken" in capsys.readouterr().out
    assert ran.read_text() == "xx"  # late ran, good did not again
    assert {one["status"] for one in report(tmp_path)[0]["parts"].values()} == {"done"}
    assert check(parts) == 0 and "0 parts to run" in capsys.readouterr().out
    for module in (runner, check.module):
        monkeypatch.setattr(module, "code_sha256", lambda folders: "other")
    assert check(parts, "--only", "good", "--commit", "new") == 0
    assert ran.read_text() == "xxx"  # of other code: once more
    measured, text = report(tmp_path)
    kept = measured["parts"]["late"]
    assert kept["findings"] == [{"what": "a figure", "figure": "1 img/s"}] and kept["code_sha256"] != "other"
    assert text.count("## a title (of other code, commit `old`)") == 2 and text.count("## a title\n") == 1
    assert measured["parts"]["good"]["code_sha256"] == "other" and measured["parts"]["good"]["commit"] == "new"
    monkeypatch.setitem(parts, "late", replace(parts["late"], missing=lambda setting: "it is not here"))
    assert check(parts, "--only", "late") == 0
    assert report(tmp_path)[0]["parts"]["late"] == kept


def test_on_a_machine_of_its_own_an_earlier_report_is_taken_over(check, tmp_path, capsys):
    parts = {"one": part(GOOD), "two": part(GOOD)}
    assert check(parts, "--only", "one") == 0
    (earlier,) = (tmp_path / "out").glob("*.json")
    assert check(parts, "--with", str(earlier), work="elsewhere") == 0
    assert "1 done before on this very code: one" in capsys.readouterr().out
    assert set(report(tmp_path)[0]["parts"]) == {"one", "two"}
    assert (tmp_path / "elsewhere" / "parts" / "ran").read_text() == "x"
    assert check(parts, "--with", str(tmp_path / "no.json")) == 2
    assert "no.json is no report of tools/gpu_check.py" in capsys.readouterr().err


def test_what_is_measured_and_not_as_promised_is_done_and_told(check, tmp_path):
    unkept = part("open(folder + '/x.json', 'w').write('{}'); raise SystemExit(1)")
    broken = part("raise SystemExit(1)")
    parts = {name: replace(one, tells_what_is_not_kept=True) for name, one in {"un": unkept, "br": broken}.items()}
    assert check({**parts, "as ever": unkept}) == 1
    outcomes = report(tmp_path)[0]["parts"]
    assert [outcomes[name]["status"] for name in ("un", "br", "as ever")] == ["done", "failed", "failed"]


def test_when_the_minutes_are_over_what_runs_is_ended_and_the_rest_waits(check, tmp_path, capsys):
    parts = {"slow": part("import time; time.sleep(600)", minutes=0.01), "next": part(GOOD, minutes=0.01)}
    assert check(parts, "--minutes", "0.03") == 0
    told = capsys.readouterr().out
    assert re.search(r"slow: unfinished after \d+ s: ended after 2 s, its limit here", told)
    assert "next: left out, the time is over" in told
    assert "0 failed, 0 cannot run here, 2 wait for another call" in told
    assert "| `slow` | unfinished |" in report(tmp_path)[1]
    assert check({**parts, "new": part(GOOD, minutes=0.01)}, "--minutes", "0.2", "--only", "slow,new") == 0
    told = capsys.readouterr().out
    assert told.index("[1 of 2] new") < told.index("[2 of 2] slow: a title")  # what was not tried comes first


def test_a_part_that_goes_on_tells_what_it_has_finished_when_its_time_is_over(check, tmp_path, capsys):
    code = "import json, sys, time\nif '--finished-only' not in sys.argv: time.sleep(600)\n"
    code += "open(folder + '/x.json', 'w').write(json.dumps({'rounds': [1]}))"
    parts = {"long": replace(part(code, limit_s=1.5), goes_on=True)}
    assert check(parts) == 0
    measured, _ = report(tmp_path)
    told = measured["parts"]["long"]
    assert told["status"] == "unfinished" and told["note"] == "ended after 2 s, its limit here"
    assert told["measured"] == {"rounds": [1]} and told["findings"]
    assert check(parts) == 0 and "[1 of 1] long" in capsys.readouterr().out


def test_outcomes_of_another_device_do_not_count():
    done = Outcome("t", "done", code_sha256="a")
    record = Record("NVIDIA H200", MACHINE, False)
    code = {"one": "a", "two": "a", "three": "b"}
    record.take_over(Record("NVIDIA A100", MACHINE, False, {"one": done}), code)
    assert not record.parts
    record.parts |= {"one": done, "three": done}
    theirs = {"one": replace(done, status="failed"), "two": done, "gone": done}
    theirs["three"] = replace(done, status="failed", code_sha256="b")
    record.take_over(Record("NVIDIA H200", MACHINE, False, theirs), code)
    assert {name: record.status(name, code[name]) for name in record.parts} == {
        "one": "done",
        "two": "done",
        "three": "failed",
    }
    assert record.status("one", "b") == record.status("gone", "a") == ""


def test_a_report_that_is_read_again_is_the_same(tmp_path):
    record = Record("x", MACHINE, False, {"one": Outcome("t", "done", findings=[Finding("a|b", "c")], measured=[1])})
    record.write(tmp_path / "r.json")
    assert Record.read(tmp_path / "r.json") == record
    assert "| a\\|b | c |" in page(record, ["two"], {}) and "| `two` | no time |" in page(record, ["two"], {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so():
    ended = python(SCRIPT, "--only", "smoke")
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr == ("error: torch sees no CUDA GPU here: run this on a machine with one, or try --dry-run\n")


@pytest.mark.parametrize("reason", ["", "slower than it could be: jpeglib.h is missing"])
def test_whether_turbo_has_its_kernel_is_told_first_and_in_the_report(reason, check, tmp_path, capsys, monkeypatch):
    told_of = {**MACHINE, "commit": "abc", "turbo_slower_because": reason}
    monkeypatch.setattr(check.module, "_machine", lambda commit: told_of)
    assert check({"good": part(GOOD)}) == 0
    first = capsys.readouterr().out.splitlines()[0]
    measured, text = report(tmp_path)
    assert first == (f"loader turbo is {reason}" if reason else "loader turbo has its native kernel")
    assert (
        measured["machine"]["turbo_slower_because"] == reason
        and (reason in text)
        and ("**Loader" in text) == bool(reason)
    )


def test_what_is_not_installed_is_said_before_anything_is_measured_with_what_it_costs(check, capsys, monkeypatch):
    gone = [one for one in needed.NEEDED if one.module in ("pytest", "airbench")]
    monkeypatch.setattr(needed, "absent", lambda: gone)
    assert check({"tests-engine": part(GOOD), "good": part(GOOD)}) == 0
    told = capsys.readouterr().out
    line = (
        "pytest is not installed, so this is left out: all tests (tests-loaders, tests-engine, tests-dali, sanitizer)"
    )
    assert line in told and "airbench is not installed, so this is left out: the other side of cifar" in told
    assert told.index(line) < told.index("[1 of 1] good: a title")
    assert "left out: tests-engine: pytest is not installed" in told


def test_without_what_every_part_needs_it_is_one_sentence_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(  # hides two packages from every import
        "import sys\n"
        "class Hidden:\n  def find_spec(self, name, *more):\n"
        "    if name in ('simplejpeg', 'tyro'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    ended = python(SCRIPT, "--list")
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("error: no part can run without simplejpeg, tyro, not installed for ")
    assert ended.stderr.count("\n") == 1


def test_all_that_pyproject_lists_is_looked_for_and_every_part_that_is_named_is_one():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = listed["optional-dependencies"]
    names = {re.match(r"[\w-]+", line)[0] for line in [*listed["dependencies"], *extras["dali"]]}
    known = {one.package for one in needed.NEEDED}
    assert names - known == {"tensorboard", "torchinfo"}  # which no part imports
    assert {name for one in needed.NEEDED for name in one.parts} <= set(PARTS)


def test_bad_input_is_one_sentence(check, capsys):
    most = "is not a number of minutes above 0 and at most 1,440"
    for words, message in (
        (["--only", "smok"], "did you mean smoke?"),
        (["--minutes", "0"], f"'0' {most}"),
        (["--minutes", "4000"], f"'4000' {most}"),
    ):
        assert check({"smoke": part(GOOD)}, *words) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1


def test_a_folder_that_is_not_there_is_refused_before_the_machine_is_asked_what_it_is(
    check, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(check.module, "_machine", lambda commit: pytest.fail("it was asked, which takes seconds"))
    assert check({"good": part(GOOD)}, "--out", str(tmp_path / "missing")) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'missing'} is no folder: give --out one that is there\n"
    assert not (tmp_path / "missing").exists()


def test_a_real_part_runs_dry(tmp_path):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    ended = python(SCRIPT, "--dry-run", "--only", "smoke", "--work", str(tmp_path / "work"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "DALI's tensors in torch, decoding JPEGs work." in ended.stdout
    assert len(list((tmp_path / "work").glob("gpu_cpu-dry-run_*.md"))) == 1


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("is_dry", [False, True])
def test_every_parts_command_is_one_that_its_script_understands(name, is_dry, tmp_path):
    setting = Setting("cpu" if is_dry else "cuda", is_dry, tmp_path, tmp_path / "photos" if is_dry else None)
    folder = tmp_path / "parts" / name
    words = list(map(str, PARTS[name].command(setting, folder)))
    if name == "self-test":
        assert self_test.parse(words[3:]).device == setting.device
    elif words[1].endswith("bench.py"):
        chosen = bench().parse(words[2:])
        assert chosen.report == folder
        assert not PARTS[name].goes_on or bench().parse([*words[2:], "--finished-only"]).finished_only
    elif name.startswith("tests-"):
        assert words[1:5] == ["-m", "pytest", "-m", "gpu"]
        assert len(files_of(words)) == 1 if is_dry else len(files_of(words)) > 5
    else:
        assert name in ("smoke", "utilisation", "sanitizer")


def files_of(words):
    return [Path(word) for word in words if word.endswith(".py")]


def test_every_test_marked_gpu_is_in_one_part_and_a_test_that_hangs_says_where(tmp_path):
    setting = Setting("cuda", False, tmp_path)
    commands = {name: one.command(setting, tmp_path) for name, one in PARTS.items() if name.startswith("tests-")}
    assert all("-v" in words and "faulthandler_timeout=90" in words for words in commands.values())
    of_dali = commands.pop("tests-dali")
    assert of_dali[of_dali.index("-k") + 1] == "dali"
    assert all(words[words.index("-k") + 1] == "not dali" for words in commands.values())
    asked = sorted(path for words in commands.values() for path in files_of(words))
    assert len(asked) == len(set(asked)) and asked == sorted(files_of(of_dali))
    tests = (REPOSITORY / "tests").rglob("test_*.py")
    marked = {path for path in tests if re.search("pytest[.]mark[.]gpu|[@]on_each_|[=]on_a_gpu", path.read_text())}
    assert set(asked) == marked


def test_parts_that_share_a_working_folder_do_not_take_each_others_rounds_away(tmp_path):
    setting = Setting("cuda", False, tmp_path)
    folders = {}
    for name, one in PARTS.items():
        words = list(map(str, one.command(setting, tmp_path / "parts" / name)))
        if "end-to-end" in words:
            chosen = bench().parse(words[2:])
            folders.setdefault(chosen.work, []).append((chosen.model, chosen.forms))
    (kept,) = folders.values()
    assert len(set(kept)) == len(kept) == 3


def test_the_first_parts_fit_into_the_default_and_each_into_a_call_of_ten_minutes():
    spec = importlib.util.spec_from_file_location("gpu_check_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = list(PARTS)
    first = names[: names.index("imagenette") + 1]
    assert sum(PARTS[name].minutes for name in first) <= module.MINUTES <= 25
    assert all(60 * one.minutes <= one.limit_s < 600 for one in PARTS.values())


# What the results of parts say


def write_tests(folder, name, *cases):
    rows = "".join(f'<testcase name="t{n}">{case}</testcase>' for n, case in enumerate(cases))
    failures, skipped = (sum(f"<{kind}" in case for case in cases) for kind in ("failure", "skipped"))
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}"'
    (folder / name).write_text(f"<testsuites><testsuite {counts}>{rows}</testsuite></testsuites>")


def test_tests_are_counted_and_none_on_a_gpu_is_no_success(tmp_path):
    skipped, failed = '<skipped message="no CUDA device"/>', '<failure message="x"/>'
    write_tests(tmp_path, found.TESTS, "", "", failed, skipped)
    assert found.tests(tmp_path) == [
        Finding("tests", "2 passed, 1 failed, 1 skipped (no CUDA device)"),
        Finding("failed", "t2"),
    ]
    write_tests(tmp_path, found.TESTS, skipped)
    with pytest.raises(FeedrateError, match="no test ran: no CUDA device"):
        found.tests(tmp_path)
    write_tests(tmp_path, found.DRY_TESTS, skipped)
    assert found.tests(tmp_path)[0].figure.startswith("0 passed")


def test_what_passed_before_pytest_was_ended_is_read_from_its_log(tmp_path):
    tests = "import time, pytest\n"
    tests += "@pytest.mark.parametrize('how', ['twice in one epoch', 'once'])\ndef test_good(how): pass\n"
    tests += "def test_bad(): assert False\ndef test_not_here(): pytest.skip('no CUDA device')\n"
    tests += "def test_hangs(): time.sleep(600)\ndef test_late(): pass\n"
    (tmp_path / "test_some.py").write_text(tests)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "-o",
        "addopts=",
    ]

    def findings(folder):
        return found.tests(folder)

    for limit_s in (8.0, 40.0, 200.0):  # the first that lets this machine's pytest come as far
        hangs = Part("t", 1.0, limit_s, lambda setting, folder: [*words, str(tmp_path / "test_some.py")], findings)
        outcome = runner.run_part("hangs", hangs, Setting("cpu", True, tmp_path), limit_s, print)
        if any(finding.what == "ended in" for finding in outcome.findings):
            break
    assert outcome.status == "failed" and outcome.note.startswith(f"ended after {limit_s:.0f} s")
    assert outcome.findings == [
        Finding("tests", "2 passed, 1 failed, 1 skipped before it was ended"),
        Finding("failed", "test_bad"),
        Finding("ended in", "test_hangs"),
    ]
    (tmp_path / found.LOG).write_text("collecting ...\n")
    with pytest.raises(FeedrateError, match="before its first test"):
        found.tests(tmp_path)


def test_the_sanitizers_summary_is_told_and_its_absence_is_a_failure(tmp_path):
    write_tests(tmp_path, found.TESTS, "")
    (tmp_path / found.LOG).write_text("========= COMPUTE-SANITIZER\n1 passed\n========= ERROR SUMMARY: 0 errors\n")
    assert found.sanitizer(tmp_path)[0] == Finding("memcheck", "ERROR SUMMARY: 0 errors")
    (tmp_path / found.LOG).write_text("1 passed\n")
    with pytest.raises(FeedrateError, match="no summary"):
        found.sanitizer(tmp_path)


def test_use_of_the_gpu_is_told_beside_nvidia_smis(tmp_path):
    busy = {"share": 0.98, "memory_bytes": 2e9, "smi_share": 0.96, "smi_memory_bytes": 3e9, "num_samples": 9}
    unseen = dict.fromkeys(busy, None) | {"num_samples": 0}
    (tmp_path / "utilisation.json").write_text(json.dumps({"cases": {"busy": busy, "waiting": unseen}}))
    told = [one.figure for one in found.utilisation(tmp_path)]
    assert told[0] == "ours 98.0%, nvidia-smi 96.0% (n = 9); memory: allocated 2,000 MB, in use 3,000 MB"
    assert told[1] == "ours n/a, nvidia-smi n/a (n = 0); memory: allocated n/a, in use n/a"


def test_what_the_clocks_cost_is_told_with_its_interval(tmp_path):
    cost = {"median": 1.004, "low": 0.998, "high": 1.01, "n": 12}
    case = {"title": "tiny", "costs": {"s_per_image": cost, "cpu_s_per_image": {**cost, "median": 1.001}}}
    (tmp_path / "profiler_overhead_today.json").write_text(json.dumps({"cases": {"tiny": case}}))
    (told,) = found.overhead(tmp_path)
    assert told.figure.startswith("+0.40% (-0.20% … +1.00%) of the time, +0.10%") and "n = 12" in told.figure
