"""`bench.py cold-memory`: profiles of one set, with and without limits on memory and on reading from the disk."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..arguments import duration, names, positive
from ..control_groups import Group, Limits, limited, why_not
from ..images import find_photos, repeated
from ..process import REPOSITORY, run
from ..report import measured_and_written
from ..rounds import Rounds
from ..side_by_side import Say
from .job import Job
from .page import page

LOADERS = ("turbo", "ffcv", "torchvision")
# which limits there are: of memory, of reading
CASES: Mapping[str, tuple[bool, bool]] = {
    "none": (False, False),
    "memory": (True, False),
    "disk": (False, True),
    "both": (True, True),
}
_BATCH_SIZE, _SIZE_PX = 32, 32  # a tiny model and small images: loading is what the loop waits for
_HELD_ROOM = 1.1  # what a process holds may be so much more than it was seen to hold
_LOADED_BATCHES = 24


@dataclass(frozen=True)
class ColdSettings:
    """What is profiled, for how long, and within which limits.

    room_share  of the set's bytes that the memory's limit leaves beside the most that the process holds; it holds less
                at first, so that more is free then
    """

    source: Path | None
    repeat: int
    loaders: tuple[str, ...]
    cases: tuple[str, ...]
    num_workers: int
    read_mb_per_s: int
    minutes: float
    num_rounds: int
    timeout_s: float
    room_share: float = 0.2


def add_options(command: argparse.ArgumentParser) -> None:
    """Those beside what every command has that measures."""
    add = command.add_argument
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=positive, default=20, metavar="K", help="use each photo K times (20)")
    add("--loaders", type=names(LOADERS), default=("turbo", "ffcv"), metavar="NAME,…", help="(turbo,ffcv)")
    add("--cases", type=names(CASES), default=tuple(CASES), metavar="NAME,…", help=f"{', '.join(CASES)} (all)")
    add("--read-mb-per-s", type=positive, default=10, metavar="MB", help="of the slower disk (10)")
    add("--minutes", type=duration("minutes", 60), default=1.0, metavar="M", help="of each profile (1)")


def execute(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    settings = ColdSettings(
        chosen.source,
        chosen.repeat,
        chosen.loaders,
        chosen.cases,
        chosen.workers,
        chosen.read_mb_per_s,
        chosen.minutes,
        chosen.rounds,
        chosen.timeout_s,
    )
    return measured_and_written(chosen, "cold_memory", lambda: measure(settings, chosen.work, say), page)


def measure(settings: ColdSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Pack, see what a profile holds in memory without the set, and take all profiles that are not taken yet.

    Raises FeedrateError where limits cannot be set on this machine.
    """
    if reason := why_not(folder):
        raise FeedrateError(f"cold-memory puts limits on a process, which cannot be done here: {reason}")
    told = {**asdict(settings), "source": str(settings.source)}
    told.pop("timeout_s")
    rounds = Rounds(folder, told)
    if "set" not in rounds.done:
        rounds.add("set", _packed(settings, folder, say))
    packed = rounds.done["set"]
    found: dict[str, Any] = {}
    for loader in settings.loaders:
        if f"{loader}/held" not in rounds.done:
            rounds.add(f"{loader}/held", _held_bytes(loader, settings, packed, folder))
        limit_bytes = round(_HELD_ROOM * rounds.done[f"{loader}/held"] + settings.room_share * packed["bytes"])
        for case in settings.cases:
            if f"{loader}/{case}" not in rounds.done:
                has_less, is_slower = CASES[case]
                reading = settings.read_mb_per_s * 10**6 if is_slower else None
                limits = Limits(limit_bytes if has_less else None, reading)
                rounds.add(f"{loader}/{case}", _case(loader, limits, settings, packed, folder))
            found.setdefault(loader, {})[case] = rounds.done[f"{loader}/{case}"]
            say(f"{loader}, {case}: {found[loader][case]['verdict']['sentence']}")
    return {"settings": {**told, "set": packed, "in_one_go": not rounds.were_begun}, "loaders": found}


def _packed(settings: ColdSettings, folder: Path, say: Say) -> dict[str, Any]:
    """The photos, packed to `.beton`: where, how many, of how many bytes."""
    images, out = folder / "images", folder / "packed"
    source = settings.source or find_photos(folder, say)
    num_images = repeated(source, settings.repeat, images)
    say(f"packing {num_images:,} photos")
    words = ["tools/convert.py", "folder", "--source", str(images), "--out", str(out), "--overwrite"]
    run([sys.executable, *words, "--workers", str(settings.num_workers)], folder / "last.log", settings.timeout_s)
    num_bytes = sum(path.stat().st_size for path in out.glob("*.beton"))
    return {"path": str(out.resolve()), "photos": source.name, "num_images": num_images, "bytes": num_bytes}


def _held_bytes(loader: str, settings: ColdSettings, packed: Mapping[str, Any], folder: Path) -> int:
    """What a profile holds of memory that the system cannot take back, at most, without a limit."""
    command = _profile(loader, settings, packed, folder, 0.05, 1)
    peaks = run(command, folder / "last.log", settings.timeout_s, is_watched=True).peaks
    assert peaks is not None and peaks.tree_held, "Linux tells what a process holds"
    return peaks.tree_held


def _case(
    loader: str, limits: Limits, settings: ColdSettings, packed: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    with limited(limits, folder) as group:
        command = _profile(loader, settings, packed, folder, settings.minutes, settings.num_rounds)
        run(group.command(command), folder / "last.log", settings.timeout_s)
        report = json.loads((folder / "runs" / "cold" / "profile" / "report.json").read_text())
        loading = {
            name: _load(loader, is_cold, group, settings, packed, folder)
            for name, is_cold in (("warm", False), ("cold", True))
        }
    workers = str(report["subject"]["workers"])
    ceilings = report["ceilings"]
    rates = {name: ceilings[name]["rounds"] for name in ("step", "loop", "loop_cold", "cold")}
    return {
        "limits": asdict(limits),
        "verdict": report["verdict"],
        "rates": {**rates, "loader": ceilings["loader"][workers]["rounds"]},
        "stored_bytes": report["subject"]["stored_bytes"],
        "memory_bytes": report["subject"]["memory_bytes"],
        "cold_share": ceilings["cold_share"],
        "loading": loading,
    }


def _load(
    loader: str, is_cold: bool, group: Group, settings: ColdSettings, packed: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    path = folder / "job.json"
    job = Job(loader, packed["path"], _SIZE_PX, _BATCH_SIZE, _LOADED_BATCHES, settings.num_workers, is_cold)
    job.write(path)
    script = str(Path(__file__).with_name("once.py"))
    ran = run(group.command([sys.executable, script, str(path.resolve())]), folder / "last.log", settings.timeout_s)
    return ran.told()


def _profile(
    loader: str, settings: ColdSettings, packed: Mapping[str, Any], folder: Path, minutes: float, rounds: int
) -> list[str]:
    options = {
        "minutes": minutes,
        "rounds": rounds,
        "name": "cold",
        "loader": loader,
        "data.path": packed["path"],
        "data.batch-size": _BATCH_SIZE,
        "data.size-px": _SIZE_PX,
        "data.workers": settings.num_workers,
        "model.name": "timm/test_resnet",
        "execution.device": "cpu",
        "execution.threads": 1,
        "run.folder": str((folder / "runs").resolve()),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(REPOSITORY / "tools" / "profile.py"), *words]
