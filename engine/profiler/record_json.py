"""report.json: a profile as JSON, and back, with every field and type checked."""

import json
import types
import typing
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError

from .record import SCHEMA_VERSION, Profile


def write_profile(path: Path, profile: Profile) -> None:
    """Put `profile` at `path`, which is whole at every moment; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(json.dumps(asdict(profile), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read_profile(path: Path) -> Profile:
    """What `write_profile` wrote. Raises FeedrateError on anything else."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise FeedrateError(f"{path} cannot be read ({error.strerror}): tools/profile.py writes it") from error
    except ValueError as error:
        raise FeedrateError(f"{path} is no JSON ({error}): profile anew") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise FeedrateError(f"{path} is of schema version {version} and this reads {SCHEMA_VERSION}: profile anew")
    profile: Profile = _as(Profile, content, str(path))
    return profile


def _as(kind: Any, value: Any, where: str) -> Any:
    """`value` of JSON as what the annotation `kind` says, or FeedrateError with the place."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _record(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is not None:
        return _READERS[origin](typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, value, getattr(kind, "__name__", str(kind)))
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    names = {field.name for field in fields(kind)}
    if not isinstance(value, dict):
        raise _wrong(where, value, "object")
    if value.keys() != names:
        differing = ", ".join(sorted(value.keys() ^ names))
        raise FeedrateError(f"{where}: fields {differing} are missing or too many; profile anew")
    kinds = typing.get_type_hints(kind)
    return kind(**{name: _as(kinds[name], value[name], f"{where}.{name}") for name in value})


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise _wrong(where, value, "list")
    return tuple(_as(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value))


def _dict(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, "object")
    key_kind, kind = arguments
    try:
        return {key_kind(key): _as(kind, item, f"{where}.{key}") for key, item in value.items()}
    except ValueError as error:  # JSON's keys are text: numbers are made of them
        raise FeedrateError(f"{where}: {error}") from error


def _union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    """X | None, the only union in a record."""
    return None if value is None else _as(arguments[0], value, where)


def _literal(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in arguments:
        raise _wrong(where, value, " or ".join(map(repr, arguments)))
    return value


_READERS: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    tuple: _tuple,
    dict: _dict,
    types.UnionType: _union,
    typing.Union: _union,
    typing.Literal: _literal,
}


def _wrong(where: str, value: Any, wanted: str) -> FeedrateError:
    return FeedrateError(f"{where} is {value!r:.60}: {wanted} is expected; profile anew")
