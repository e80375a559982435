"""Weights that a run has left: which file holds them, and what it tells of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics

from ..models.weight_files import split_section

# what a user calls them, and the file in a run's folder; see run_folder.py
WEIGHTS_OF_RUN = {
    "last": "weights.safetensors",
    "best": "weights-best.safetensors",
    **{f"{average}{best}": f"{average}{best}.safetensors" for average in ("ema", "swa") for best in ("", "-best")},
}


@dataclass(frozen=True)
class Finished:
    """A file of weights, and what its metadata tell; a file that was not written by a run may tell nothing.

    model          by name
    classes        one a score, in order
    channels       what images were normalised by
    sizes_px       the options of an evaluation: eval_size_px, eval_resize_px, eval_crop_px
    blur_pool      whether the model blurs before it strides, which its weights do not show
    epoch          counted from 0, of the best epoch's weights
    config_sha256  of the settings they were trained with
    """

    path: Path
    model: str | None = None
    classes: tuple[str, ...] | None = None
    channels: ChannelStatistics | None = None
    sizes_px: tuple[tuple[str, str], ...] = ()
    blur_pool: bool = False
    epoch: int | None = None
    config_sha256: str | None = None

    def options(self) -> list[str]:
        """What the metadata tell, as options of a run: to go by where nothing else is known of it."""
        named = [] if self.model is None else ["--model.name", self.model]
        named += ["--model.blur-pool"] if self.blur_pool else []
        return named + [word for name, px in self.sizes_px for word in (f"--data.{name.replace('_', '-')}", px)]


def find_weights(target: Path, which: str | None) -> Path:
    """The file that `target` means: itself, or in a run's folder the one called `which`, a name of WEIGHTS_OF_RUN.

    A file may be named with #SECTION. Raises FeedrateError where there is none.
    """
    if target.is_dir():
        return _in_folder(target, which or "last")
    if not split_section(target)[0].is_file():
        raise FeedrateError(f"there is no {target}: name a run's folder, such as runs/NAME, or a file of weights")
    if which is not None:
        raise FeedrateError(f"--which is {which} and chooses among a run's weights, and {target} is one file: leave it")
    return target


def config_beside(target: Path) -> Path | None:
    """config.toml of the run whose folder `target` is, or lies in; also for a checkpoint. None where there is none."""
    folders = [target] if target.is_dir() else [target.parent, target.parent.parent]
    if folders[0].name != "checkpoints":
        folders = folders[:1]
    found = (folder / "config.toml" for folder in folders)
    return next((path for path in found if path.is_file()), None)


def read_finished(path: Path) -> Finished:
    """What the file at `path` tells of its weights. Raises FeedrateError for one that is damaged."""
    told = read_about(path)
    try:
        return Finished(
            path,
            model=told.get("model"),
            classes=_strings(told["classes"]) if "classes" in told else None,
            channels=_channels(told["normalize"], path) if "normalize" in told else None,
            sizes_px=tuple(
                (name, told[name]) for name in ("eval_size_px", "eval_resize_px", "eval_crop_px") if name in told
            ),
            blur_pool="blur_pool" in told,
            epoch=int(told["epoch"]) if "epoch" in told else None,
            config_sha256=told.get("config_sha256"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise FeedrateError(f"{path} tells of itself what cannot be understood: it was not written by a run") from error


def read_about(path: Path) -> dict[str, str]:
    """A .safetensors file's metadata, as it stands there; nothing for other files, which have none.

    Raises FeedrateError where the file cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FeedrateError(f"{path} cannot be read: {str(error).rstrip('.')}") from error


def _in_folder(folder: Path, which: str) -> Path:
    path = folder / WEIGHTS_OF_RUN[which]
    if path.is_file():
        return path
    there = [f"--which {name}" for name, file in WEIGHTS_OF_RUN.items() if (folder / file).is_file()]
    if there:
        when = ", which a run writes at its end" if which == "last" else ""
        raise FeedrateError(f"{folder} has no {path.name}{when}: it has what {', '.join(there)} names")
    raise FeedrateError(f"{folder} has no weights, which a run writes at its end and after its best epochs: name a run")


def _strings(text: str) -> tuple[str, ...]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("no list of names")
    return tuple(values)


def _channels(text: str, path: Path) -> ChannelStatistics:
    values: dict[str, Any] = json.loads(text)
    mean, std = (tuple(float(value) for value in values[name]) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("not of three channels")
    return ChannelStatistics(mean, std, f"what {path} was trained with")
