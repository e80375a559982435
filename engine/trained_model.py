"""What a run has trained, for people's own scripts: the model with its weights, and what it expects of images."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from loaders.errors import FeedrateError
from loaders.home_folder import expand_home

from .checkpointing.finished import config_beside, find_weights, read_finished
from .command_line import parse_config
from .dist import Ranks
from .model import finished_model
from .models.weight_files import read_weights


@dataclass(frozen=True)
class Expected:
    """What a trained model expects of images, and what its scores mean.

    classes    names, one a score, in order
    mean, std  what images are normalised by: of red, green and blue, as values of 0 to 1
    size_px    side of the square images it was evaluated on
    resize_px  with crop_px: the square is the middle of an image and has crop_px / resize_px of its shorter side
    crop_px    see resize_px
    """

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size_px: int
    resize_px: int
    crop_px: int


def load_model(path: str | Path, which: str | None = None) -> tuple[nn.Module, Expected]:
    """A trained model, on the CPU and in evaluation mode, and what it expects.

    `path` is a run's folder, of whose weights `which` names those of tools/evaluate.py's --which (last), or a
    .safetensors file that a run wrote. The model takes float32 [B, 3, size_px, size_px], normalised, and gives float32
    [B, classes]. It is made as the run's config.toml says, for a file elsewhere as its metadata do; a model of people's
    own is imported. torch's random numbers go on as if nothing had been drawn, those of CUDA where it is in use. Raises
    FeedrateError where there are no such weights, or they do not tell what they are.
    """
    path = Path(expand_home(str(path)))
    finished = read_finished(find_weights(path, which))
    sizes = {name: int(px) for name, px in finished.sizes_px}
    if None in (finished.model, finished.classes, finished.channels) or len(sizes) < 3:
        raise FeedrateError(
            f"{finished.path} does not tell its model, classes, normalisation and sizes, as what a run writes at its"
            " end does: name such a file, or the run's folder"
        )
    assert finished.model and finished.classes and finished.channels
    beside = config_beside(path)
    config = parse_config(finished.options() if beside is None else ["--config", str(beside), *finished.options()])
    # no run: in whatever layout the script wants it, on one rank
    config = replace(config, execution=replace(config.execution, channels_last=False))
    weights = read_weights(str(finished.path))
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
        model = finished_model(config, len(finished.classes), alone, weights, str(finished.path), lambda text: None)
    mean, std = (tuple(value / 255 for value in values) for values in (finished.channels.mean, finished.channels.std))
    expected = Expected(
        finished.classes, mean, std, sizes["eval_size_px"], sizes["eval_resize_px"], sizes["eval_crop_px"]
    )
    return model.cpu().eval(), expected
