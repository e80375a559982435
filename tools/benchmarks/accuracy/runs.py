"""Training runs of one preset, a run for each loader and seed: those that are finished are read, the others made."""

import json
import os
import sys
import tomllib
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.command_line import build, parse_config
from engine.config import Config, RunConfig
from engine.nesting import flat
from engine.profiler.number_text import rate_text
from loaders.choose import choose_loader
from loaders.errors import FeedrateError

from .. import json_lines
from ..process import REPOSITORY, CommandFailed, run
from ..report import write_text
from ..rounds import held
from ..side_by_side import Say

_LOAD = "load.json"


@dataclass(frozen=True)
class AccuracySettings:
    """Which runs. `data` None: where the preset has them. Threads and workers are each run's. `finished_only`: make
    none, what is finished is all there is."""

    config: str
    data: Path | None
    loaders: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    num_threads: int
    num_workers: int
    timeout_s: float
    finished_only: bool = False

    @property
    def preset(self) -> str:
        """The preset's name, for names of files."""
        return Path(self.config).stem

    def name(self, loader: str, seed: int) -> str:
        """Of a run, and of its folder below `folder`."""
        return f"{self.preset}-{loader}-{seed}"

    def words(self, loader: str, seed: int) -> list[str]:
        """The options of engine/train.py for this run."""
        data = [] if self.data is None else ["--data.path", str(self.data)]
        return [
            *("--config", self.config, *data, "--loader", loader, "--seed", str(seed)),
            *("--name", self.name(loader, seed), "--run.folder", str(self.folder)),
            *("--execution.threads", str(self.num_threads), "--data.workers", str(self.num_workers)),
        ]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    epochs          its records of metrics.jsonl, in order
    environment     what it ran on, as its own env.json says
    load_1_min      of the machine before it began; None where another command made the run
    weights_sha256  of all tensors of its last weights, by name; "" where they are not kept
    """

    name: str
    loader: str
    seed: int
    config: Config
    epochs: list[dict[str, Any]]
    environment: dict[str, Any]
    load_1_min: float | None
    weights_sha256: str


def train_all(settings: AccuracySettings, say: Say) -> tuple[list[Trained], dict[str, str]]:
    """All runs, loader by loader, and by loader why it could not run. What is not finished is trained, or gone on with.

    A loader whose run fails, also since another process is at it, is not tried with another seed: it costs the others
    nothing. Raises FeedrateError where a run of this name has other settings, or none could be made.
    """
    asked = [(loader, seed) for seed in settings.seeds for loader in settings.loaders]
    done = {pair: found for pair in asked if (found := read_run(settings, *pair))}
    todo = [] if settings.finished_only else [pair for pair in asked if pair not in done]
    skipped: dict[str, str] = {}
    for loader in dict.fromkeys(loader for loader, _ in todo):
        try:
            choose_loader(loader)
        except FeedrateError as error:
            skipped[loader] = str(error)
            say(f"{loader} is skipped: {error}")
    todo = [pair for pair in todo if pair[0] not in skipped]
    if done:
        say(f"{len(done)} of {len(asked)} runs are finished")
    if todo:
        settings.folder.mkdir(parents=True, exist_ok=True)
        with held(settings.folder, "--folder"):
            for count, pair in enumerate(todo, 1):
                if pair[0] in skipped:
                    continue
                try:
                    done[pair] = _train(settings, *pair, say)
                    say(f"{count} of {len(todo)}: {_shown(done[pair])}")
                except CommandFailed as error:
                    skipped[pair[0]] = f"its run with seed {pair[1]} {error.how}"
                    say(f"{pair[0]} is skipped: {skipped[pair[0]]}")
    if not done and settings.finished_only:
        raise FeedrateError(f"no run in {settings.folder} is finished: leave --finished-only out")
    if not done:
        raise FeedrateError(f"none of the loaders can run here: {'; '.join(skipped.values())}")
    return [done[loader, seed] for loader in settings.loaders for seed in settings.seeds if (loader, seed) in done], (
        skipped
    )


def read_run(settings: AccuracySettings, loader: str, seed: int) -> Trained | None:
    """The run if it is finished: every epoch is in its metrics. Nothing is written.

    Raises FeedrateError where the folder holds a run of other settings.
    """
    name = settings.name(loader, seed)
    folder = settings.folder / name
    wanted = parse_config(settings.words(loader, seed))
    if not (folder / "config.toml").exists():
        return None
    config = build(Config, tomllib.loads((folder / "config.toml").read_text()), str(folder / "config.toml"))
    if different := differences(config, wanted):
        raise FeedrateError(
            f"{folder} holds a run with {'; '.join(different)}: ask for the same, give another --folder, or remove it"
        )
    epochs = json_lines.by_kind(folder / "metrics.jsonl")["epoch"]
    if [record["epoch"] for record in epochs] != list(range(wanted.epochs)):
        return None
    environment = json.loads((folder / "env.json").read_text())
    load = json.loads((folder / _LOAD).read_text())["load_1_min"] if (folder / _LOAD).exists() else None
    return Trained(name, loader, seed, config, epochs, environment, load, weights_sha256(folder))


def differences(found: Config, wanted: Config) -> list[str]:
    """In which settings two configurations differ, apart from where they log and how often, and how a path is put."""
    one, two = (flat(asdict(replace(config, run=RunConfig()))) for config in (found, wanted))
    for settings in (one, two):
        settings["data.path"] = str((REPOSITORY / settings["data.path"]).resolve())
    return [f"{name} {one[name]} where {two[name]} is asked for" for name in one if one[name] != two[name]]


def weights_sha256(folder: Path) -> str:
    """Of the names, types, shapes and bits of weights.safetensors; what the file tells about itself is left out."""
    from safetensors import safe_open

    path = folder / "weights.safetensors"
    if not path.exists():
        return ""
    digest = sha256()
    with safe_open(path, framework="np") as tensors:
        for name in sorted(tensors.keys()):
            array = tensors.get_tensor(name)
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _train(settings: AccuracySettings, loader: str, seed: int, say: Say) -> Trained:
    name, load = settings.name(loader, seed), os.getloadavg()[0]
    say(f"training {name}")
    command = [sys.executable, str(REPOSITORY / "engine" / "train.py"), *settings.words(loader, seed)]
    run(command, settings.folder / f"{name}.log", settings.timeout_s)
    write_text(settings.folder / name / _LOAD, json.dumps({"load_1_min": round(load, 2)}) + "\n")
    found = read_run(settings, loader, seed)
    if found is None:
        raise FeedrateError(f"{settings.folder / name} misses epochs though its run has ended: remove it and run again")
    return found


def _shown(done: Trained) -> str:
    last = done.epochs[-1]
    return f"{done.name}: top-1 {last['eval_top1']:.2%}, {rate_text(last['images_per_s'])} img/s"
