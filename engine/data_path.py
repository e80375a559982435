"""Where a run's data are read from, and what makes them where they are not there."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError, some_of
from loaders.home_folder import given_path
from loaders.manifest import MANIFEST_NAME, Manifest, parse_manifest
from loaders.records import class_folders, is_own

from .channels import in_words
from .config import Config, DataConfig

_PACKED = "-packed"
_SIZED = re.compile(r"imagenet-(full|500|400|256)")  # and the converters' preset of that name


def data_path_to_open(data: DataConfig) -> str:
    """The path of `data`, or the packed set that the converters left beside it, where that is preferred.

    A name alone makes none: a set whose manifest names another source, which is still there, is not taken for it.
    """
    packed = _packed_beside(data.path)
    preferred = data.prefer_packed and _is_packed(packed) and not _is_of_another(_source_of(packed), data.path)
    return packed if preferred else data.path


def told_of_path(data: DataConfig) -> list[str]:
    """What is to be said of `data_path_to_open`, a line each: which of two sets is read, why, and whether it is old."""
    packed = _packed_beside(data.path)
    if not data.prefer_packed or not _is_packed(packed):
        return []
    source = _source_of(packed)
    if _is_of_another(source, data.path):
        return [f"reading {data.path}, not {packed}: that was packed from {source} (--data.path {packed} reads it)"]
    if source is None:
        return [f"reading {packed}, packed from {data.path} as its name says (its manifest names no source)"]
    if not _exists(data.path):
        return [f"reading {packed}, packed from {source}"]
    origin = data.path if _exists(source) else f"what was {source}"
    return [f"reading {packed}, packed from {origin}", *_warning_of_classes(data.path, packed)]


def existing_path(data: DataConfig) -> str:
    """`data_path_to_open`. Raises FeedrateError where nothing is there and the command that packs it is known."""
    path = data_path_to_open(data)
    command = None if Path(path).exists() else packing_command(data)
    if command is None:
        return path  # what else may be wrong with it is said by who opens it
    raise FeedrateError(f"{path} does not exist: pack it by '{command}', or give other data by --data.path")


def path_to_read(data: DataConfig, say: Callable[[str], None]) -> str:
    """Where the set lies that is read, or the one packed from it, which `say` hears of.

    Raises FeedrateError where nothing is there and what packs it is known.
    """
    path = existing_path(data)
    for line in told_of_path(data):
        say(line)
    return path


def found_from(config: Config, run: Path) -> tuple[Config, str]:
    """`config` with a data path that exists, and what is to be said of it, if anything.

    Where a relative path leads nowhere, it is tried from the folder that the run in the folder `run` was started in.
    Raises FeedrateError where it leads nowhere from there either, and no command is known that packs it.
    """
    data, path = config.data, given_path(config.data.path)
    if is_own(data.path) or path.is_absolute() or config.loader == "synthetic" or _exists(data_path_to_open(data)):
        return config, ""
    try:
        began = json.loads((run / "env.json").read_bytes())["working_directory"]
        if tomllib.loads((run / "config.toml").read_text())["data"]["path"] != data.path:
            return config, ""  # which was given here
        there = replace(data, path=str(Path(began) / path))
    except (OSError, ValueError, KeyError, TypeError):  # of a file that was copied, or of an older run
        return config, ""
    if _exists(data_path_to_open(there)):
        told = f"{data.path} is not here: reading {there.path}, from where {run} was started"
        return replace(config, data=there), told
    if packing_command(data) is None:
        raise FeedrateError(
            f"{data.path} exists neither here nor in {began}, where {run} was started: give the data by --data.path"
        )
    return config, ""


def packing_command(data: DataConfig) -> str | None:
    """What packs the set that a run of `data` would read, where its folder is called as in the presets; else None."""
    path = data.path.rstrip("/")
    folder = Path(path)
    if is_own(path):
        return None
    out = path if path.endswith(_PACKED) else _packed_beside(path)
    if (sized := _SIZED.fullmatch(folder.name)) is not None:
        words = ["imagenet", "--preset", sized[1], "--out", path]
    elif folder.name == "demo":
        words = ["synthetic", "--out", path, "--num-train", "2000", "--num-val", "500"]
    elif out != path and not data.prefer_packed:
        return None  # the images themselves are asked for
    elif (name := folder.name.removesuffix(_PACKED)) == "imagenet":
        words = ["imagenet", "--source", "FOLDER", "--out", out]
    elif name in ("cifar10", "cifar100"):
        words = [name, "--download", "--out", out]
    elif name == "imagenette":
        words = ["folder", "--source", str(folder.parent / "imagenette2-160"), "--out", out]
    else:
        return None
    return f"python tools/convert.py {shlex.join(words)}"


def data_then_and_now(config_file: Path, data: DataConfig) -> str:
    """Which path a run began with, by its config.toml, and which is read for it now, for who finds that they differ.

    Likewise what it normalises by, where that was set otherwise; then of the path only where it is another.
    """
    opened, now = data_path_to_open(data), _setting(data.normalize)
    try:
        began = tomllib.loads(config_file.read_text("utf-8"))["data"]
        then, normalize = str(began["path"]), _setting(began.get("normalize", "auto"))
    except (OSError, ValueError, KeyError, TypeError):  # gone, or not ours any more: nothing is told of then
        then, normalize = "", now
    of_normalize = f"The run began with --data.normalize {normalize}, and now it is {now}" if normalize != now else ""
    if of_normalize and then == opened:
        return of_normalize
    told = f"The run began with --data.path {then}, and {opened} is read now" if then else f"Now {opened} is read"
    if opened != data.path and (not then or Path(then) == Path(data.path)):  # not of a set that is another anyway
        told += f": if that was packed since, --data.no-prefer-packed reads {data.path} itself"
    return f"{told}. {of_normalize}" if of_normalize else told


def _packed_beside(path: str) -> str:
    return f"{path.rstrip('/')}{_PACKED}"


def _is_packed(path: str) -> bool:
    return (Path(path) / MANIFEST_NAME).is_file()


def _source_of(packed: str) -> str | None:
    """What the manifest says the set was packed from; None where it says nothing, or is not sound."""
    manifest = _manifest_of(packed)
    path = manifest.source.get("path") if manifest else None
    return path if isinstance(path, str) else None


def _is_of_another(source: str | None, path: str) -> bool:
    """Whether both are there and are not the same. Where a folder and its packed set were moved, the source is not."""
    if source is None or not _exists(source) or not _exists(path):
        return False
    return not Path(source).samefile(path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # it lies where nobody may look
        return False


def _manifest_of(packed: str) -> Manifest | None:
    try:
        return parse_manifest(Path(packed))
    except FeedrateError:
        return None  # who opens the set says what is wrong with it


def _warning_of_classes(path: str, packed: str) -> list[str]:
    """A warning where the folder's classes are not those that were packed."""
    manifest, now = _manifest_of(packed), class_folders(path)
    if manifest is None or now is None or set(now) == set(manifest.classes):
        return []
    found = ((path, set(now) - set(manifest.classes)), (packed, set(manifest.classes) - set(now)))
    alone = " and ".join(f"{where} alone has {some_of(names)}" for where, names in found if names)
    command = shlex.join(["python", "tools/convert.py", "folder", "--source", path, "--out", packed, "--overwrite"])
    return [
        f"warning: {path} has other classes than when {packed} was packed ({alone}), and the packed set is read:"
        f" pack it again by '{command}' and the options it was packed with, or read {path} itself by"
        " --data.no-prefer-packed"
    ]


def _setting(normalize: Any) -> str:
    return normalize if isinstance(normalize, str) else in_words(normalize)
