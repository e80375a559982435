"""`bench.py profilers`: one training script with ten planted bottlenecks, and what each profiler says of them."""

import argparse
import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..arguments import duration, names, positive
from ..images import find_photos, repeated
from ..process import run
from ..report import measured_and_written
from ..rounds import Rounds
from ..side_by_side import Say
from .cases import CASES, Job
from .judging import JUDGES
from .page import page

WATCHERS = tuple(JUDGES)
_REPEAT = 4  # of 500 photos: more steps than are taken, on two ranks too
_SCRIPT = str(Path(__file__).with_name("once.py"))
_VERSION = "import importlib.metadata as m; print(m.version('traceml-ai'))"


@dataclass(frozen=True)
class ProfilersSettings:
    """What is watched by whom. `traceml_python`: an interpreter that has TraceML beside what is installed here."""

    cases: tuple[str, ...]
    watchers: tuple[str, ...]
    num_steps: int
    minutes: float
    num_rounds: int
    traceml_python: str | None
    timeout_s: float


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    add("--cases", type=names(CASES), default=tuple(CASES), metavar="NAME,…", help=f"{', '.join(CASES)} (all)")
    add("--watchers", type=names(WATCHERS), default=WATCHERS, metavar="NAME,…", help=f"{', '.join(WATCHERS)} (all)")
    add("--steps", type=positive, default=40, metavar="N", help="of the script, where it is watched (40)")
    add("--minutes", type=duration("minutes", 60), default=0.5, metavar="M", help="of each profile of ours (0.5)")
    add("--traceml-python", metavar="PATH", help="a python that has traceml-ai (this one, if it has)")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    settings = ProfilersSettings(
        chosen.cases,
        chosen.watchers,
        chosen.steps,
        chosen.minutes,
        chosen.rounds,
        _traceml_python(chosen.traceml_python),
        chosen.timeout_s,
    )
    return measured_and_written(chosen, "profilers", lambda: measure(settings, chosen.work, say), page)


def measure(settings: ProfilersSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run the script once a case and watcher, those runs that are not done yet. TraceML's where it is installed."""
    versions = _versions(settings.traceml_python, folder, settings.timeout_s)
    told = {
        "steps": settings.num_steps,
        "minutes": settings.minutes,
        "rounds": settings.num_rounds,
        "packages": versions,
    }
    rounds = Rounds(folder, told)
    if "data" not in rounds.done:
        rounds.add("data", _packed(folder, settings.timeout_s, say))
    found: dict[str, Any] = {}
    for name in settings.cases:
        case = CASES[name]
        found[name] = {"title": case.title, "planted": _planted(name), "side": case.side, "said": {}}
        for watcher in settings.watchers:
            if watcher == "traceml" and settings.traceml_python is None:
                found[name]["said"][watcher] = {"text": "", "judged": "not installed"}
                continue
            if f"{name}/{watcher}" not in rounds.done:
                rounds.add(f"{name}/{watcher}", _run(name, watcher, rounds.done["data"], settings, folder))
            text, judged = JUDGES[watcher](case, rounds.done[f"{name}/{watcher}"])
            found[name]["said"][watcher] = {"text": text, "judged": judged, "told": _kept(rounds.done, name, watcher)}
            say(f"{name}, {watcher}: {judged}: {text}")
    return {"settings": {**told, "in_one_go": not rounds.were_begun}, "cases": found}


def _planted(name: str) -> str:
    case = CASES[name]
    return f"{case.ms_per_image:g} ms an image, {case.kind}"


def _kept(done: Mapping[str, Any], name: str, watcher: str) -> Any:
    told = done[f"{name}/{watcher}"]
    if watcher != "traceml":
        return told
    average = told["step_time"]["global"]["average"]
    return {"primary_diagnosis": told["primary_diagnosis"], "step_time_average": average}


def _packed(folder: Path, timeout_s: float, say: Say) -> str:
    images, out = folder / "images", folder / "packed"
    num_images = repeated(find_photos(folder, say), _REPEAT, images)
    say(f"packing {num_images:,} photos at 256 px")
    words = ["folder", "--source", str(images), "--out", str(out), "--preset", "256", "--overwrite"]
    run([sys.executable, "tools/convert.py", *words], folder / "last.log", timeout_s)
    return str(out.resolve())


def _run(name: str, watcher: str, data: str, settings: ProfilersSettings, folder: Path) -> dict[str, Any]:
    job_path, result = (folder / "job.json").resolve(), (folder / "result.json").resolve()
    result.unlink(missing_ok=True)
    Job(name, watcher, data, str(result), settings.num_steps, settings.minutes, settings.num_rounds).write(job_path)
    logs = (folder / "traceml").resolve()
    shutil.rmtree(logs, ignore_errors=True)
    num_ranks = CASES[name].num_ranks
    if watcher == "traceml":
        assert settings.traceml_python is not None
        command = [str(Path(settings.traceml_python).with_name("traceml")), "run", _SCRIPT, "--logs-dir", str(logs)]
        command += ["--run-name", name, "--nproc-per-node", str(num_ranks), "--args", str(job_path)]
    elif num_ranks > 1:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        command = [*launch, _SCRIPT, str(job_path)]
    else:
        command = [sys.executable, _SCRIPT, str(job_path)]
    run(command, folder / "last.log", settings.timeout_s)
    written = logs / name / "final_summary.json" if watcher == "traceml" else result
    if not written.exists():
        raise FeedrateError(f"{watcher} left nothing of case '{name}': see {folder / 'last.log'}")
    told: dict[str, Any] = json.loads(written.read_text())
    return told


def _traceml_python(given: str | None) -> str | None:
    """Raises FeedrateError where the one that was given has no TraceML beside it."""
    if given is None:
        return sys.executable if importlib.util.find_spec("traceml_ai") else None
    if not Path(given).with_name("traceml").exists():
        raise FeedrateError(f"there is no command 'traceml' beside {given}: install traceml-ai there")
    return given


def _versions(traceml_python: str | None, folder: Path, timeout_s: float) -> dict[str, str]:
    import torch

    versions = {"torch": torch.__version__}
    if traceml_python is not None:
        asked = run([traceml_python, "-c", _VERSION], folder / "last.log", timeout_s)
        versions["traceml-ai"] = asked.output.strip()
    return versions
