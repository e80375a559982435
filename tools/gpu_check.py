"""Check and measure everything on a GPU: tests, ceilings, loaders, accuracy, profiler; part by part.

python3 tools/gpu_check.py [--minutes M] [--only NAME,…] [--out FOLDER] [--list]
python3 tools/gpu_check.py --dry-run          on the CPU, with tiny sizes: whether the check itself works

Each part is a process of its own: one that crashes, hangs or takes too long is noted, and the next goes on. The same
command goes on with what is missing or was ended for its time; parts that are done on this very code are skipped,
and those that failed on it, but for --retry. What was found on other code stays in the report, marked, until it is
found anew. Parts that do not fit into --minutes are left out, the least important first, and said. Afterwards
gpu_<device>_<date>.json and .md are in --out; they are written anew after each part.
"""

import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early, end_early_no_more
from tools.gpu_checks import needed

if __name__ == "__main__":
    end_early()  # the imports below take seconds
    needed.refuse(needed.absent())  # the imports below would end in a traceback

import argparse
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from converters.generated.photos import write_photos
from engine.safeguards.exit_status import exit_status
from loaders.errors import FeedrateError
from tools.benchmarks.arguments import Parser, duration, names
from tools.benchmarks.process import last_said, shown
from tools.benchmarks.report import write_text
from tools.benchmarks.rounds import code_sha256, held
from tools.gpu_checks.page import page
from tools.gpu_checks.part import Part, Setting
from tools.gpu_checks.parts import PARTS
from tools.gpu_checks.record import Record
from tools.gpu_checks.runner import Chosen, choose, run_all, why_missing

MINUTES = 25.0
_DESCRIBE = "import json; from tools.benchmarks.machine import describe; print(json.dumps(describe()))"
_SMI = ("nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader")
_DRY_PHOTOS = {"train": 24, "val": 8}


def main(arguments: Sequence[str], parts: Mapping[str, Part] = PARTS) -> int:
    """Run the command; returns its exit status: 0 all parts ended well, 1 one failed, 2 bad input, 130 interrupted."""

    def check() -> int:
        chosen = parse(arguments, parts)
        asked = {name: part for name, part in parts.items() if not chosen.only or name in chosen.only}
        setting = _setting(chosen)
        if chosen.list:
            _list(asked, setting)
            return 0
        return _check(chosen, parts, asked, setting)

    return exit_status(check, "the same command goes on after the last part that is done")


def parse(arguments: Sequence[str], parts: Mapping[str, Part]) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError."""
    parser = Parser(
        prog="gpu_check.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--only", type=names(parts), metavar="NAME,…", help=f"({', '.join(parts)})")
    add("--minutes", type=duration("minutes", 1440), default=MINUTES, metavar="M", help=f"for all ({MINUTES:g})")
    add("--out", type=Path, metavar="FOLDER", help="of the report (docs/benchmarks; of a dry run, its working folder)")
    add("--work", type=Path, metavar="FOLDER", help="for images and what is done so far (data/gpu-check)")
    add(
        "--with", dest="earlier", type=Path, metavar="FILE", help="an earlier report's .json: what it has is taken over"
    )
    add("--commit", default="", metavar="SHA", help="of this code, where git is not there to tell")
    add("--retry", action="store_true", help="also the parts that failed on this very code before")
    add("--list", action="store_true", help="only show the parts, their minutes, and whether they can run here")
    add("--dry-run", action="store_true", help="on the CPU, with tiny sizes")
    return parser.parse_args(arguments)


def _setting(chosen: argparse.Namespace) -> Setting:
    folder = "gpu-check-dry" if chosen.dry_run else "gpu-check"
    work = (chosen.work or REPOSITORY / "data" / folder).resolve()
    return Setting(
        *(("cpu", True) if chosen.dry_run else ("cuda", False)), work, work / "photos" if chosen.dry_run else None
    )


def _check(chosen: argparse.Namespace, parts: Mapping[str, Part], asked: Mapping[str, Part], setting: Setting) -> int:
    out = chosen.out or (setting.work if setting.is_dry else REPOSITORY / "docs" / "benchmarks")
    if chosen.out and not out.is_dir():
        raise FeedrateError(f"{out} is no folder: give --out one that is there")
    machine = _machine(chosen.commit)  # takes seconds: a process imports torch, and on a GPU wakes it
    if not (machine["gpus"] or setting.is_dry):
        raise FeedrateError("torch sees no CUDA GPU here: run this on a machine with one, or try --dry-run")
    slower = machine.get("turbo_slower_because")
    _say(f"loader turbo is {slower}" if slower else "loader turbo has its native kernel")
    setting.work.mkdir(parents=True, exist_ok=True)
    with held(setting.work, "--work"):
        if setting.photos:
            write_photos(setting.photos, _DRY_PHOTOS, num_classes=2, num_workers=1)
        record = _record(machine, parts, setting, chosen.earlier)
        picked = choose(asked, record, setting, chosen.minutes, chosen.retry)
        _tell(picked, chosen.minutes)

        def keep() -> None:
            record.write(setting.work / _STATE)
            name = f"gpu_{_slug(record.device)}_{date.today().isoformat()}"
            record.write(out / f"{name}.json")
            write_text(out / f"{name}.md", page(record, picked.no_time, _code(parts)))

        run_all(picked, record, setting, chosen.minutes, _say, keep)
    ended = Counter(record.status(name, code) for name, code in _code(asked).items())
    _say(f"{_end(ended, picked)}; the report is in {out}")
    return 1 if ended["failed"] else 0


_STATE = "state.json"


def _record(machine: Mapping[str, Any], parts: Mapping[str, Part], setting: Setting, earlier: Path | None) -> Record:
    """What is known already of this device, on whichever code."""
    record = Record("cpu dry run" if setting.is_dry else machine["gpus"][0], machine, setting.is_dry)
    for path in (setting.work / _STATE, earlier):
        if path is not None and (path == earlier or path.exists()):
            record.take_over(Record.read(path), _code(parts))
    return record


def _code(parts: Mapping[str, Part]) -> dict[str, str]:
    """The hash of each part's code, as it is now."""
    return {name: code_sha256(part.code) for name, part in parts.items()}


def _machine(commit: str) -> dict[str, Any]:
    """In a process of its own, so that this one holds nothing of a GPU."""
    described = subprocess.run([sys.executable, "-c", _DESCRIBE], cwd=REPOSITORY, capture_output=True, text=True)
    if described.returncode:
        raise FeedrateError(f"this machine cannot be described: {last_said(described.stderr)}")
    machine: dict[str, Any] = json.loads(described.stdout.splitlines()[-1])
    machine["commit"] = machine["commit"] or commit
    if shutil.which(_SMI[0]):
        machine["driver"] = subprocess.run(_SMI, capture_output=True, text=True).stdout.strip()
    command = shown([sys.executable, "tools/gpu_check.py", *sys.argv[1:]])
    return {**machine, "date": date.today().isoformat(), "command": command}


def _list(parts: Mapping[str, Part], setting: Setting) -> None:
    for name, part in parts.items():
        why = why_missing(name, part, setting)
        time = f"{part.minutes:5.1f} min, {part.limit_s / 60:4.1f} at most"
        print(f"{name:22}{time}   {part.title}{f' ({why})' if why else ''}")
    print(f"{'all':22}{sum(part.minutes for part in parts.values()):5.1f} min; --minutes {MINUTES:g} unless told")


def _tell(chosen: Chosen, minutes: float) -> None:
    expected = sum(part.minutes for part in chosen.todo.values())
    _say(f"{len(chosen.todo)} parts to run, about {expected:.1f} of {minutes:g} min")
    for line in needed.costs(needed.absent()):
        _say(line)
    if chosen.done:
        _say(f"{len(chosen.done)} done before on this very code: {', '.join(chosen.done)}")
    for name, (_, why) in chosen.missing.items():
        _say(f"left out: {name}: {why}")
    if chosen.failed:
        _say(
            f"{len(chosen.failed)} failed before on this very code: {', '.join(chosen.failed)}; --retry runs them again"
        )
    if chosen.no_time:
        _say(f"left out for want of time: {', '.join(chosen.no_time)}; the same command goes on with them")


def _end(ended: Counter[str], chosen: Chosen) -> str:
    told = f"{ended['done']} of {ended.total()} parts done, {ended['failed']} failed"
    told += f", {len(chosen.missing)} cannot run here"
    waiting = len(chosen.no_time) + ended["unfinished"]
    return told + (f", {waiting} wait for another call" if waiting else "")


def _slug(device: str) -> str:
    """ "NVIDIA H200" is "h200"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia ")).strip("-")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    end_early_no_more()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is running is ended then, too
    sys.exit(main(sys.argv[1:]))
