"""What is trained: the settings of a model."""

from dataclasses import dataclass

from loaders.errors import FeedrateError
from loaders.home_folder import expand_home

from ..bounds import between

OWN_RATE = -1.0  # of dropout and drop path: as the model has it


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    name: str = "resnet18"
    """Any classifier of torchvision's by name (resnet50, vit_b_16), of timm's as timm/NAME, cifar_resnet20, 32, 44, 56
    and 110, cifar_resnet18, cifar_fast, or one of your own as module:factory."""
    weights: str = ""
    """What to start from: a .safetensors file, one that torch.save wrote (FILE#SECTION: what lies there by that name,
    such as model_ema), or default, those published for the model. Empty: the seed."""
    freeze_backbone: bool = False
    """Train the classifier alone. All before it stays as the weights have it, its batch norms as in evaluation."""
    dropout: float = OWN_RATE
    """Share of features dropped, where the model takes one; -1: the model's own."""
    drop_path: float = OWN_RATE
    """Share of images for which the last residual block is left out, earlier ones less; -1: the model's own."""
    blur_pool: bool = False
    """Blur before every convolution of stride 2 and more with at least 16 channels, as FFCV's recipe."""
    freeze_whitening: bool = True
    """Keep cifar_fast's first filters as they were drawn from the first training images."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", expand_home(self.weights))
        for name, rate in {"dropout": self.dropout, "drop_path": self.drop_path}.items():
            if rate != OWN_RATE:
                between(0, 1, **{name: rate})
                if rate == 1:
                    raise FeedrateError(f"{name} is 1: it must be below 1, or nothing is left to train on")
        if self.freeze_backbone and not self.weights:
            raise FeedrateError(
                "freeze_backbone is on and there are no weights to keep: --model.weights names a file or is default"
            )
