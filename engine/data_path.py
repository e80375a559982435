"""Where a run's data are read from, and what makes them where they are not there."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError
from loaders.named import is_named

from .config import DataConfig

_PACKED = "-packed"
_SIZED = re.compile(r"imagenet-(full|500|400|256)")  # and the converters' preset of that name


def data_path_to_open(data: DataConfig) -> str:
    """The path of `data`, or the packed set that the converters left beside it, where that is preferred."""
    packed = Path(_packed_beside(data.path))
    return str(packed) if data.prefer_packed and (packed / "manifest.json").is_file() else data.path


def existing_path(data: DataConfig) -> str:
    """`data_path_to_open`. Raises FeedrateError where nothing is there and the command that packs it is known."""
    path = data_path_to_open(data)
    command = None if Path(path).expanduser().exists() else packing_command(data)
    if command is None:
        return path  # what else may be wrong with it is said by who opens it
    raise FeedrateError(f"{path} does not exist: pack it by '{command}', or give other data by --data.path")


def packing_command(data: DataConfig) -> str | None:
    """What packs the set that a run of `data` would read, where its folder is called as in the presets; else None."""
    path = data.path.rstrip("/")
    folder = Path(path)
    if is_named(path.partition("@")[0]):
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
    opened, now = data_path_to_open(data), _in_words(data.normalize)
    try:
        began = tomllib.loads(config_file.read_text("utf-8"))["data"]
        then, normalize = str(began["path"]), _in_words(began.get("normalize", "auto"))
    except (OSError, ValueError, KeyError, TypeError):  # gone, or not ours any more: nothing is told of then
        then, normalize = "", now
    of_normalize = f"The run began with --data.normalize {normalize}, and now it is {now}" if normalize != now else ""
    if of_normalize and then == opened:
        return of_normalize
    told = f"The run began with --data.path {then}, and {opened} is read now" if then else f"Now {opened} is read"
    if opened != data.path:
        told += f": if that was packed since, --data.no-prefer-packed reads {data.path} itself"
    return f"{told}. {of_normalize}" if of_normalize else told


def _packed_beside(path: str) -> str:
    return f"{path.rstrip('/')}{_PACKED}"


def _in_words(normalize: Any) -> str:
    return normalize if isinstance(normalize, str) else " ".join(f"{value:g}" for value in normalize)
