"""Checkpoints: complete or not there, checked before use, and refused where they do not fit.

`checkpoints/step-00001234.pt` is written by `torch.save` and read with `weights_only=True`, so no pickle in it can run
code. Its seal, size and SHA-256, stands in `step-00001234.json`, written first: a `.pt` without a matching `.json` is
not used. Where a checkpoint of the same step is written again, the new seal fits the old file too until the new one has
taken its name, so that at every moment one of the two is valid.

torch is imported where it is needed: what only writes or checks bytes starts without it.
"""

import io
import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from loaders.atomic import PARTIAL_SUFFIX, atomic_file
from loaders.errors import FeedrateError

from ..nesting import flat, is_within

_NAME = re.compile(r"step-(\d+)\.pt")

# of an identity: what is told on CUDA alone; absent, it differs from nothing
_OF_CUDA = "execution.deterministic"

# of an identity: settings that are called otherwise there, and their options
_OPTION_OF = {
    "stream.seed": "--seed",
    "stream.order.global_batch_size": "--data.batch-size",
    "stream.view.size_px": "--data.size-px",
}

# of an identity: what differs where the data do
_OF_DATA = ("stream.data", "normalize")

Say = Callable[[str], None]


def save_checkpoint(
    folder: Path, step: int, content: dict[str, Any], num_kept: int, best_step: int | None = None
) -> Path:
    """Write `content` (tensors and plain data) atomically as the checkpoint of global step `step`.

    See `write_sealed` for what else happens. Returns the file's path.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_sealed(folder, step, buffer.getbuffer(), num_kept, best_step)


def write_sealed(
    folder: Path, step: int, payload: bytes | memoryview, num_kept: int, best_step: int | None = None
) -> Path:
    """Write the bytes of a checkpoint and its seal, then let the older ones go.

    The newest `num_kept` stay, and with each of them the one it knows as the best, `best_step`. Raises FeedrateError
    where the disk does not take it; the earlier ones are then as they were. Returns the file's path.
    """
    path = path_of(folder, step)
    seal: dict[str, Any] = {"step": step, **_digest(payload), "best_step": best_step}
    is_new = not path.exists()
    if not is_new and fault_of(path) is None:
        seal["replaces"] = _digest(path.read_bytes())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path.with_suffix(".json")) as file:
            file.write(json.dumps(seal).encode() + b"\n")
        try:
            with atomic_file(path) as file:
                file.write(payload)
        except BaseException:
            if is_new:
                path.with_suffix(".json").unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FeedrateError(f"checkpoint {path} cannot be written: {error}; earlier ones are untouched") from error
    _prune(folder, step, num_kept)
    return path


def newest_checkpoint(folder: Path, say: Say) -> dict[str, Any] | None:
    """The content of the newest valid checkpoint in `folder`, on the CPU, and its "path"; None where there is none.

    A file that is cut short or altered is passed over, and `say` hears of it.
    """
    for path in checkpoints_by_step(folder):
        fault = fault_of(path)
        if fault is None:
            return {**_read(path), "path": str(path)}
        say(f"checkpoint {path} is passed over: {fault}")
    return None


def clean_leftovers(folder: Path) -> None:
    """Remove what a writer that was killed left behind: unfinished files, and seals of files that never came."""
    for unfinished in folder.glob(f"step-*{PARTIAL_SUFFIX}"):
        unfinished.unlink(missing_ok=True)
    for seal in folder.glob("step-*.json"):
        if not seal.with_suffix(".pt").exists():
            seal.unlink(missing_ok=True)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of that global step lies."""
    return folder / f"step-{step:08d}.pt"


def checkpoints_by_step(folder: Path) -> list[Path]:
    """All, valid or not, newest first, by number: 10 comes before 9."""
    return sorted((path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The global step in a checkpoint's name."""
    return int(path.stem.removeprefix("step-"))


def fault_of(path: Path) -> str | None:
    """Why this checkpoint must not be used, None where it may."""
    seal = _seal_of(path)
    if seal is None:
        return "its .json with size and checksum is missing or damaged"
    accepted = [seal, seal["replaces"]] if seal.get("replaces") else [seal]
    size = path.stat().st_size
    if size not in [one["bytes"] for one in accepted]:
        return f"it has {size:,} bytes of {seal['bytes']:,}"
    with open(path, "rb") as file:
        whole = sha256(file.read()).hexdigest() in [one["sha256"] for one in accepted]
    return None if whole else "its checksum does not match"


def refuse_mismatch(
    saved: dict[str, Any], current: dict[str, Any], allowed: tuple[str, ...], about_data: str = "", learnt: str = ""
) -> dict[str, str]:
    """Compare two identities (nested plain data) and raise FeedrateError naming what differs and how to accept it.

    Another stream is never accepted: a position in one order means nothing in another. `about_data` is said where the
    data are others, and that another run can start from the file `learnt` where no option goes on with this one.
    Returns the differences that `allowed` accepts: a sentence each, by what differs.
    """
    before, now = flat(saved), flat(current)
    compared = before.keys() | now.keys()
    if _OF_CUDA not in before or _OF_CUDA not in now:
        compared -= {_OF_CUDA}
    differing = sorted(key for key in compared if before.get(key) != now.get(key))
    told = {key: f"{_named(key)} was {_short(before.get(key))} and is {_short(now.get(key))}" for key in differing}
    of_stream = [key for key in differing if is_within(key, "stream")]
    refused = [key for key in differing if key in of_stream or not any(is_within(key, name) for name in allowed)]
    if refused:
        keep = f"; --model.weights {learnt} starts it from what was learnt" if learnt else ""
        accept = keep if of_stream else f", or accept it with --run.allow-change {' '.join(refused)}"
        is_of_data = any(is_within(key, name) for key in refused for name in _OF_DATA)
        of_data = f" {about_data}." if about_data and is_of_data else ""
        raise FeedrateError(
            f"the checkpoint is of another configuration: {'; '.join(told[key] for key in refused)}.{of_data}"
            f" Start another run with --name{accept}"
        )
    return told


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FeedrateError(
            f"checkpoint {path} is refused, since it holds more than tensors and plain data and could run code:"
            " delete it if you did not put it there"
        ) from error
    return content


def _prune(folder: Path, step: int, num_kept: int) -> None:
    """Let go what is neither among the newest `num_kept` nor the best that one of these knows.

    What is newer than `step` was damaged, else the run had gone on from it: it may not push out a valid one.
    """
    present = checkpoints_by_step(folder)
    kept = [path for path in present if step_of(path) <= step][:num_kept]
    bests = {(_seal_of(path) or {}).get("best_step") for path in kept}
    kept += [path_of(folder, best) for best in bests if best is not None]
    for path in present:
        if path not in kept:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)


def _digest(payload: bytes | memoryview) -> dict[str, Any]:
    return {"bytes": len(payload), "sha256": sha256(payload).hexdigest()}


def _seal_of(path: Path) -> dict[str, Any] | None:
    try:
        seal = json.loads(path.with_suffix(".json").read_bytes())
        return seal if {"bytes", "sha256"} <= seal.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _named(key: str) -> str:
    return f"{key} ({_OPTION_OF[key]})" if key in _OPTION_OF else key


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 20 else text[:12] + "…"
