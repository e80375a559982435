"""Where a model's classifier is: what gives one score a class, and is replaced when the classes are others."""

from torch import nn


def classifier_names(model: nn.Module, num_classes: int) -> tuple[str, ...]:
    """Dotted names of the modules that give the scores: as timm says of its models, else the last layer with weights.

    A few of timm's have two; people's own have none where that layer does not give one score a class.
    """
    published = getattr(model, "pretrained_cfg", None)
    named = published.get("classifier") if published else None
    names = (named,) if isinstance(named, str) else tuple(named or ())
    modules = dict(model.named_modules())
    names = tuple(name for name in names if name in modules)
    if names:
        return names
    layers = [(name, module) for name, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)]
    return tuple(name for name, last in layers[-1:] if _width(last) == num_classes)


def _width(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
