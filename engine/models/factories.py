"""People's own models, each made by the factory that its name, `module:factory`, names."""

import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from loaders.errors import FeedrateError, first_line
from loaders.named import load_named

from .image_sizes import attributes_kept
from .model_config import OWN_RATE, ModelConfig


def made_by_factory(settings: ModelConfig, num_classes: int, seed: int) -> nn.Module:
    """What the factory called `settings.name` gives for so many classes; what it draws by torch comes from `seed`.

    Raises FeedrateError, in one sentence, for a factory that is not there, cannot be called with `num_classes` alone,
    raises, or gives something else than a module whose weights have their shapes.
    """
    name = settings.name
    factory = load_named(name)
    call = f"{name.split(':')[1]}(num_classes={num_classes})"
    _refuse_other_signature(factory, name, call, num_classes)
    if (settings.dropout, settings.drop_path) != (OWN_RATE, OWN_RATE):
        raise FeedrateError(
            f"'{name}' is told nothing but the number of classes: leave --model.dropout and --model.drop-path at -1,"
            " and have the factory set them"
        )
    torch.manual_seed(seed)
    try:
        model = factory(num_classes=num_classes)
    except FeedrateError:
        raise
    except Exception as error:
        raise FeedrateError(f"'{name}' failed when it was called as {call}: {_told(error, factory)}") from error
    if not isinstance(model, nn.Module):
        raise FeedrateError(f"'{name}', called as {call}, gives {type(model).__name__}: it must give a torch.nn.Module")
    if lazy := [of for of, tensor in model.named_parameters() if is_lazy(tensor)]:
        raise FeedrateError(
            f"'{name}' gives a model whose {lazy[0]} has no shape yet: call it once with images in the factory, or give"
            " the layer's size"
        )
    return model


def refuse_layout(model: nn.Module, name: str, side_px: int) -> None:
    """Raise FeedrateError where `model` takes images of that side, but not in the layout that is the fastest.

    Asked in earnest, on one image: shapes alone do not show it.
    """
    last = _failure(model, side_px, torch.channels_last)
    if last is None:
        return
    if (error := _failure(model, side_px, torch.contiguous_format)) is not None:
        raise FeedrateError(f"{name} fails on an image of {side_px} px ({_raised(error)}): mend it") from error
    raise FeedrateError(
        f"{name} cannot be computed with channels last ({_raised(last)}): change that in it, as by reshape in"
        " place of view, or give --execution.no-channels-last"
    ) from last


def _failure(model: nn.Module, side_px: int, layout: torch.memory_format) -> Exception | None:
    """What evaluating one black image in this layout raises; the weights stay in it."""
    was_training = model.training
    model.eval().to(memory_format=layout)
    try:
        with torch.no_grad(), attributes_kept(model):
            model(torch.zeros(1, 3, side_px, side_px).to(memory_format=layout))
    except Exception as error:
        return error
    finally:
        model.train(was_training)
    return None


def refuse_idle_weights(model: nn.Module, name: str, side_px: int) -> None:
    """Raise FeedrateError where a weight that is to be trained has no part in what `model` gives.

    DistributedDataParallel would wait for its gradient for ever, or break off. Asked in earnest, on two images.
    """
    trained = {of: tensor for of, tensor in model.named_parameters() if tensor.requires_grad}
    if not trained:
        return  # who is to train it says so
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    was_training = model.training
    model.train()
    try:
        with attributes_kept(model):
            model(torch.zeros(2, 3, side_px, side_px)).sum().backward()
        idle = [of for of, tensor in trained.items() if tensor.grad is None]
    except Exception as error:
        raise FeedrateError(f"{name} cannot be trained on two images of {side_px} px ({_raised(error)})") from error
    finally:
        model.train(was_training)
        for weight in trained.values():
            weight.grad = None
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if idle:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        raise FeedrateError(
            f"{name} makes no use of {idle[0]}{more}, and several ranks wait for the gradients of all: leave out what"
            " is not used, or freeze it by requires_grad_(False)"
        )


def _refuse_other_signature(factory: Any, name: str, call: str, num_classes: int) -> None:
    if not callable(factory):
        raise FeedrateError(
            f"'{name}' is of type {type(factory).__name__}: it must be a function or class that gives a model,"
            f" called as {call}"
        )
    try:
        inspect.signature(factory).bind(num_classes=num_classes)
    except ValueError:
        return  # one that does not say what it takes
    except TypeError as error:
        raise FeedrateError(
            f"'{name}' cannot be called as {call} ({error}): it must take num_classes, and have a default for whatever"
            " else it takes"
        ) from error


def _told(error: Exception, factory: Callable[..., Any]) -> str:
    """What was raised, in one line, and where in the factory's own file."""
    words = _raised(error)
    file = getattr(sys.modules.get(getattr(factory, "__module__", None) or ""), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{words} ({Path(file).name}, line {lines[-1]})" if file and lines else words


def _raised(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
