"""Checkpoints: complete or not there, checked before use, and refused where they do not fit.

`checkpoints/step-00001234.pt` is written by `torch.save` and read with `weights_only=True`, so no pickle in it can run
code. Its size and SHA-256 stand in `step-00001234.json`, written first: a `.pt` without a matching `.json` is not used.
"""

import io
import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from loaders.api import FeedrateError
from loaders.atomic import atomic_file

_NAME = re.compile(r"step-(\d+)\.pt")

Say = Callable[[str], None]


def save_checkpoint(folder: Path, step: int, content: dict[str, Any], num_kept: int) -> Path:
    """Write `content` (tensors and plain data) atomically as the checkpoint of global step `step`.

    The newest `num_kept` are kept; older ones go once the new one is on the disk. Returns the file's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getbuffer()
    path = folder / f"step-{step:08d}.pt"
    seal = {"step": step, "bytes": len(payload), "sha256": sha256(payload).hexdigest()}
    try:
        with atomic_file(path.with_suffix(".json")) as file:
            file.write(json.dumps(seal).encode() + b"\n")
        with atomic_file(path) as file:
            file.write(payload)
    except OSError as error:
        raise FeedrateError(f"checkpoint {path} cannot be written: {error}; earlier ones are untouched") from error
    for old in _by_step(folder)[num_kept:]:
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path, say: Say) -> dict[str, Any] | None:
    """The content of the newest valid checkpoint in `folder`, on the CPU; None where there is none.

    A file that is cut short or altered is passed over, and `say` hears of it.
    """
    for path in _by_step(folder):
        fault = _fault_of(path)
        if fault is None:
            try:
                content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError as error:
                raise FeedrateError(
                    f"checkpoint {path} is refused, since it holds more than tensors and plain data and could run code:"
                    " delete it if you did not put it there"
                ) from error
            return content
        say(f"checkpoint {path} is passed over: {fault}")
    return None


def refuse_mismatch(saved: dict[str, Any], current: dict[str, Any], allowed: tuple[str, ...]) -> list[str]:
    """Compare two identities (nested plain data) and raise FeedrateError naming what differs and how to accept it.

    Another stream is never accepted: a position in one order means nothing in another. Returns the differences that
    `allowed` accepts, as sentences.
    """
    before, now = _flat(saved), _flat(current)
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    told = {key: f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}" for key in differing}
    of_stream = [key for key in differing if _is_within(key, "stream")]
    refused = [key for key in differing if key in of_stream or not any(_is_within(key, name) for name in allowed)]
    if refused:
        accept = "" if of_stream else f", or accept it with --run.allow-change {' '.join(refused)}"
        raise FeedrateError(
            f"the checkpoint is of another configuration: {'; '.join(told[key] for key in refused)}."
            f" Start another run with --name{accept}"
        )
    return [told[key] for key in differing]


def _is_within(key: str, name: str) -> bool:
    """Whether `name` is the dotted `key` or a section that holds it."""
    return key == name or key.startswith(name + ".")


def _by_step(folder: Path) -> list[Path]:
    """Newest first, by number: 10 comes before 9."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _fault_of(path: Path) -> str | None:
    """Why this file must not be used, None where it may."""
    try:
        seal = json.loads(path.with_suffix(".json").read_bytes())
        size, digest = seal["bytes"], seal["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its .json with size and checksum is missing or damaged"
    if path.stat().st_size != size:
        return f"it has {path.stat().st_size:,} bytes of {size:,}"
    with open(path, "rb") as file:
        whole = sha256(file.read()).hexdigest() == digest
    return None if whole else "its checksum does not match"


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 20 else text[:12] + "…"
