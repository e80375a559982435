"""Models by their names, for images of the usual size."""

from torch import nn

from engine.models.architectures import new_model
from engine.models.image_sizes import ImageSizes
from engine.models.model_config import ModelConfig

_USUAL_PX = 224


def build_model(name: str, num_classes: int, seed: int) -> nn.Module:
    """The model called `name`, its weights drawn from `seed` alone. Raises FeedrateError for an unknown name."""
    return new_model(ModelConfig(name), num_classes, ImageSizes((_USUAL_PX,), _USUAL_PX), seed)
