"""Where a run's data are read from."""

import tomllib
from pathlib import Path
from typing import Any

from .config import DataConfig

_PACKED = "-packed"


def data_path_to_open(data: DataConfig) -> str:
    """The path of `data`, or the packed set that the converters left beside it, where that is preferred."""
    packed = Path(_packed_beside(data.path))
    return str(packed) if data.prefer_packed and (packed / "manifest.json").is_file() else data.path


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
