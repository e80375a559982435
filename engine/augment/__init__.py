"""From a loader's pixels to a model's input, on the device, the same for all loaders."""

from .normalize import IMAGENET_CHANNELS, Normalize

__all__ = ["IMAGENET_CHANNELS", "Normalize"]
