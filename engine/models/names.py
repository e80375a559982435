"""Which models there are. torchvision and timm are imported where they are needed: that takes seconds."""

from loaders.errors import FeedrateError, did_you_mean
from loaders.named import is_named

TIMM = "timm/"
CIFAR_DEPTHS = {f"cifar_resnet{depth}": depth for depth in (20, 32, 44, 56, 110)}
OWN = (*CIFAR_DEPTHS, "cifar_resnet18", "cifar_fast")


def model_names() -> list[str]:
    """torchvision's classifiers and our own; timm's, over a thousand, are not listed."""
    from torchvision import models

    return [*sorted(models.list_models(module=models)), *OWN]


def refuse_unknown(name: str) -> None:
    """Raise FeedrateError for a name that is not known, with the nearest one that is. People's own are looked for
    where they are made."""
    if name in OWN or is_named(name):  # without asking torchvision
        return
    if name.startswith(TIMM):
        import timm

        if timm.is_model(name.removeprefix(TIMM)):
            return
    elif name in model_names():
        return
    import timm

    known = [*model_names(), *(TIMM + of_timm for of_timm in timm.list_models())]
    raise FeedrateError(
        f"unknown model '{name}': {did_you_mean(name, known)}known are torchvision's classifiers by name, such as"
        f" resnet50, timm's as timm/NAME, {', '.join(OWN)}, and your own as module:factory (docs/extending.md)"
    )
