"""From a name to a model with weights drawn at random."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from loaders.errors import FeedrateError
from loaders.named import is_named

from .cifar_fast import CifarFast
from .cifar_resnet import CifarResNet, cifar_resnet18
from .factories import made_by_factory
from .image_sizes import ImageSizes
from .model_config import OWN_RATE, ModelConfig
from .names import CIFAR_DEPTHS, OWN, TIMM, refuse_unknown

# without their auxiliary classifiers, whose outputs would come beside the logits. Their published weights expect inputs
# of another scale, which `transform_input` sees to; it is always on, so that all weights of theirs mean the same
_WITHOUT_AUXILIARIES = {"aux_logits": False, "transform_input": True, "init_weights": True}
_TORCHVISION_KEYWORDS: dict[str, dict[str, Any]] = {
    "googlenet": _WITHOUT_AUXILIARIES,
    "inception_v3": _WITHOUT_AUXILIARIES,
}

Builder = Callable[..., nn.Module]


def new_model(settings: ModelConfig, num_classes: int, sizes: ImageSizes, seed: int) -> nn.Module:
    """The model called `settings.name` for images of these sizes, its weights drawn from `seed` alone.

    Raises FeedrateError for a name that is not known and for a setting the model does not take.
    """
    refuse_unknown(settings.name)
    if is_named(settings.name):
        return made_by_factory(settings, num_classes, seed)
    if settings.name in OWN:
        build: Builder = _own
    elif settings.name.startswith(TIMM):
        build = _timm
    else:
        build = _torchvision
    model = build(settings, num_classes, sizes, seed)
    _refuse_rates_not_taken(model, settings)
    return model


def _own(settings: ModelConfig, num_classes: int, sizes: ImageSizes, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if settings.name in CIFAR_DEPTHS:
        return CifarResNet(CIFAR_DEPTHS[settings.name], num_classes)
    if settings.name == "cifar_fast":
        return CifarFast(num_classes, settings.freeze_whitening)
    return cifar_resnet18(num_classes)


def _torchvision(settings: ModelConfig, num_classes: int, sizes: ImageSizes, seed: int) -> nn.Module:
    from torchvision import models

    builder: Builder = models.get_model_builder(settings.name)
    keywords: dict[str, Any] = {"num_classes": num_classes, **_TORCHVISION_KEYWORDS.get(settings.name, {})}
    side = sizes.evaluation_px  # what a model made for one size is made for
    if settings.name.startswith("vit_"):
        keywords["image_size"] = side
    if settings.name.startswith("maxvit_"):
        keywords["input_size"] = (side, side)
    # densenet calls its dropout otherwise, and the builders of swin and maxvit set their drop path themselves
    for dropout, drop_path in itertools.product(("dropout", "drop_rate"), ("stochastic_depth_prob", "")):
        model = _built(builder, keywords | _rates(settings, dropout, drop_path), settings.name, side, seed)
        if model is not None:
            if not drop_path and settings.drop_path != OWN_RATE:
                _scale_drop_path(model, settings.drop_path)
            return model
    raise _not_taken(settings)


def _timm(settings: ModelConfig, num_classes: int, sizes: ImageSizes, seed: int) -> nn.Module:
    keywords = {"num_classes": num_classes, **_rates(settings, "drop_rate", "drop_path_rate")}
    build = partial(_create, settings.name)
    for of_size in timm_size_keywords(settings.name, sizes):
        model = _built(build, keywords | of_size, settings.name, sizes.evaluation_px, seed)
        if model is not None:
            return model
    raise _not_taken(settings)


def timm_size_keywords(name: str, sizes: ImageSizes) -> list[dict[str, Any]]:
    """What to tell a model of timm's about sizes, the best first; some take no more than the last."""
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(name.removeprefix(TIMM))
    if published is None or not published.fixed_input_size:
        return [{}]
    fixed = {"img_size": sizes.evaluation_px}
    return [fixed] if sizes.are_one else [fixed | {"dynamic_img_size": True}, fixed]


def _create(name: str, **keywords: Any) -> nn.Module:
    import timm

    return timm.create_model(name.removeprefix(TIMM), pretrained=False, **keywords)


def _built(builder: Builder, keywords: dict[str, Any], name: str, side: int, seed: int) -> nn.Module | None:
    """The model; None where its builder does not take one of the keywords."""
    torch.manual_seed(seed)  # at each try, so that nothing is left of one before
    try:
        return builder(**keywords)
    except TypeError as error:
        if "keyword argument" in str(error):
            return None
        raise
    except (AssertionError, ValueError) as error:  # what vision transformers say to a side their patches do not divide
        message = f"{name} cannot be made for images of {side} px: {error}; change --data.eval-size-px"
        raise FeedrateError(message) from error


def _rates(settings: ModelConfig, dropout: str, drop_path: str) -> dict[str, float]:
    rates = {dropout: settings.dropout, drop_path: settings.drop_path}
    return {name: rate for name, rate in rates.items() if name and rate != OWN_RATE}


def _scale_drop_path(model: nn.Module, largest: float) -> None:
    """torchvision's layers of that kind keep their proportions; the largest rate becomes `largest`."""
    from torchvision.ops import StochasticDepth

    layers = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    before = max((layer.p for layer in layers), default=0.0)
    for layer in layers:
        layer.p *= largest / before if before else 1.0


def _refuse_rates_not_taken(model: nn.Module, settings: ModelConfig) -> None:
    """Some builders swallow what they do not know: a rate above 0 must be found in the model."""
    if settings.dropout > 0 and not any(
        (isinstance(module, nn.Dropout) and module.p == settings.dropout)
        or getattr(module, "drop_rate", None) == settings.dropout
        for module in model.modules()
    ):
        raise FeedrateError(f"{settings.name} takes no dropout: leave --model.dropout at -1")
    if settings.drop_path > 0 and not any(_drop_paths(model, settings.name)):
        raise FeedrateError(f"{settings.name} takes no drop path: leave --model.drop-path at -1")


def _drop_paths(model: nn.Module, name: str) -> list[float]:
    """The rates of all layers that leave out residual branches."""
    if name.startswith(TIMM):
        from timm.layers.drop import DropPath

        return [float(module.drop_prob or 0) for module in model.modules() if isinstance(module, DropPath)]
    from torchvision.ops import StochasticDepth

    return [float(module.p) for module in model.modules() if isinstance(module, StochasticDepth)]


def _not_taken(settings: ModelConfig) -> FeedrateError:
    asked = [
        option
        for option, rate in (("--model.dropout", settings.dropout), ("--model.drop-path", settings.drop_path))
        if rate != OWN_RATE
    ]
    return FeedrateError(f"{settings.name} does not take {' and '.join(asked)}: leave at -1 what it does not have")
