"""Weights in files, ours and other engines': where they lie among what such a file holds, and under which names."""

import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from loaders.errors import FeedrateError

Weights = dict[str, torch.Tensor]

_TAKEN = ".safetensors, or what torch.save wrote (.pt, .pth, .bin, .ckpt, .pth.tar and others)"
# where files keep weights among other things, ours ("model") among them; and what wrappers put before each name
_SECTIONS = ("model", "state_dict", "model_state_dict")
_AVERAGED = ("model_ema", "state_dict_ema")  # torchvision's reference scripts, and timm's
_WRAPPERS = ("_orig_mod.", "module.")
_COUNTER = "n_averaged"  # of torch's AveragedModel, beside the weights
# what training scripts keep beside the weights, each by the names it was ever pickled under
_BESIDE = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    "builtins.float",
    "datetime.datetime",
    "datetime.timedelta",
    *(
        f"{module}.{kind}"
        for module in ("pathlib", "pathlib._local")
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
)


def split_section(path: str | Path) -> tuple[Path, str]:
    """FILE and SECTION of FILE#SECTION, and an empty section where none is named."""
    file, mark, section = str(path).rpartition("#")
    return (Path(path), "") if not mark or Path(path).exists() else (Path(file), section)


def read_weights(path: str, say: Callable[[str], None] | None = None) -> Weights:
    """The weights in a .safetensors file, or in one that torch.save wrote, also within a checkpoint. On the CPU.

    FILE#SECTION are those under that name; else the plain ones are taken before averaged ones, of which `say` hears.
    Nothing in the file is executed. Raises FeedrateError for a file that cannot be used.
    """
    file, section = split_section(path)
    if not file.is_file():
        inside = file / "weights.safetensors"  # what a run calls its last weights
        name_it = f": name a file in that folder, such as {inside}" if inside.is_file() else ""
        raise FeedrateError(f"--model.weights: there is no file {file}{name_it}")
    content = _content(file)
    if section:
        content = _section(file, content, section)
    elif isinstance(content, dict) and say is not None:
        _tell_of_averages(file, content, say)
    while isinstance(content, dict):
        named = next((name for name in (*_SECTIONS, *_AVERAGED) if isinstance(content.get(name), dict)), None)
        if named is None:
            break
        content = content[named]
    if not isinstance(content, dict) or not content or not all(_is_weight(*item) for item in content.items()):
        raise FeedrateError(f"{path} holds no weights: it must be a model's state_dict, or hold one as 'model'")
    return {_without_wrappers(name): tensor for name, tensor in content.items() if name != _COUNTER}


class _PassedOver:
    """Stands in for what is kept beside the weights: takes whatever the file gives it, and keeps and does nothing."""

    def __new__(cls, *values: Any) -> "_PassedOver":
        return super().__new__(cls)

    def __init__(self, *values: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _plain_dict(*default: Any) -> dict[Any, Any]:
    """In place of a defaultdict: torch's reader fills nothing but plain ones."""
    return {}


def _content(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        # not the classes themselves: some of them, as numpy's dtype, can be given states that are not sound
        stand_ins: list[Any] = [(_plain_dict, "collections.defaultdict"), *((_PassedOver, name) for name in _BESIDE)]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FeedrateError(_refusal(file, str(error))) from error
    except Exception as error:  # each format's reader has its own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FeedrateError(f"{file} cannot be read: {said}; weights are read from {_TAKEN}") from error


def _refusal(file: Path, complaint: str) -> str:
    named = re.search(r"GLOBAL (\S+)", complaint)
    if named is None:
        return f"{file} is refused, since it is not of plain tensors and data: weights are read from {_TAKEN}"
    return (
        f"{file} is refused, since it holds {named[1]}, which is more than tensors and plain data and could run code:"
        f" if you trust it, write its weights alone, by torch.save(torch.load('{file}', weights_only=False)"
        "['state_dict'], 'weights.pt'), with the name they have there; of a whole model, its state_dict()"
    )


def _section(file: Path, content: Any, section: str) -> Any:
    inside = content if isinstance(content, dict) else {}
    if isinstance(inside.get(section), dict):
        return inside[section]
    there = [repr(name) for name, value in inside.items() if isinstance(value, dict)]
    held = f"it has {', '.join(there)}" if there else "its weights lie in none: leave it out"
    raise FeedrateError(f"{file} has no section '{section}', which #{section} names: {held}")


def _tell_of_averages(file: Path, content: dict[Any, Any], say: Callable[[str], None]) -> None:
    averaged = [name for name in _AVERAGED if isinstance(content.get(name), dict)]
    if not averaged:
        return
    if any(isinstance(content.get(name), dict) for name in _SECTIONS):
        say(f"{file} holds averaged weights too, which are passed over: {file}#{averaged[0]} takes them")
    else:
        say(f"{file} holds averaged weights alone: these are taken")


def _is_weight(name: Any, tensor: Any) -> bool:
    return isinstance(name, str) and isinstance(tensor, torch.Tensor)


def _without_wrappers(name: str) -> str:
    while wrapper := next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)), ""):
        name = name.removeprefix(wrapper)
    return name
