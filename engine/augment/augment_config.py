"""Settings of what is done to batches of training images on the device."""

from dataclasses import dataclass
from typing import Any, Literal

from loaders.errors import FeedrateError

from ..bounds import at_least, between

OFF: dict[str, dict[str, Any]] = {
    "shift": {"shift_px": 0},
    "policy": {"policy": "none"},
    "jitter": dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
    "erase": {"erase_probability": 0.0},
    "mix": dict.fromkeys(("mixup_alpha", "cutmix_alpha"), 0.0),
}
"""Each kind of augmentation, and the settings that turn it on, by name: where all have these values there is none."""


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to batches of training images on the device, after crop and flip, in this order.

    While images are uint8: shift, policy, colour jitter. After normalisation: erasing, mixing. All off by default.
    """

    shift_px: int = 0
    """Move images by up to so many pixels in both directions. What comes in is mirrored, where crop pad has black."""
    policy: Literal["none", "rand", "trivial"] = "none"
    """RandAugment or TrivialAugment (wide), with torchvision's 14 operations and ranges."""
    policy_operations: int = 2
    """Of rand: operations an image, one after another."""
    policy_magnitude: int = 9
    """Of rand: 0 to 30."""
    brightness: float = 0.0
    """Colour jitter: factors of 1 - x to 1 + x, drawn for each image. The order of the four is drawn for each step."""
    contrast: float = 0.0
    """As brightness."""
    saturation: float = 0.0
    """As brightness."""
    hue: float = 0.0
    """Shifts of -x to x of the colour circle, up to 0.5."""
    jitter_probability: float = 1.0
    """That an image's colours are jittered at all."""
    erase_probability: float = 0.0
    """Random erasing: that a rectangle of an image is blanked."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the image."""
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    """Smallest and largest height / width."""
    erase_fill: Literal["mean", "colour"] = "mean"
    """The mean that images are normalised by, or one colour an image, drawn as normalised values are spread."""
    mixup_alpha: float = 0.0
    """Mixup with shares of Beta(x, x); 0: off."""
    cutmix_alpha: float = 0.0
    """CutMix with areas of Beta(x, x); 0: off."""
    cutmix_share: float = 0.5
    """Where both are on: the probability that it is CutMix and not mixup."""
    mix_probability: float = 1.0
    """That there is any mixing."""
    mix_each: Literal["batch", "sample"] = "batch"
    """Whether one share, kind and rectangle hold for a step's whole batch or each sample has its own.
    With mixing on, train top-1 counts a sample as right where the model answers its own label, not its partner's."""

    def __post_init__(self) -> None:
        at_least(0, shift_px=self.shift_px)
        at_least(1, policy_operations=self.policy_operations)
        between(0, 30, policy_magnitude=self.policy_magnitude)
        at_least(0, brightness=self.brightness, contrast=self.contrast, saturation=self.saturation)
        at_least(0, mixup_alpha=self.mixup_alpha, cutmix_alpha=self.cutmix_alpha)
        between(0, 0.5, hue=self.hue)
        between(0, 1, jitter_probability=self.jitter_probability, erase_probability=self.erase_probability)
        between(0, 1, mix_probability=self.mix_probability, cutmix_share=self.cutmix_share)
        _refuse_bad_range("erase_area", self.erase_area, 1.0)
        _refuse_bad_range("erase_ratio", self.erase_ratio, float("inf"))

    def turns_on(self, kind: str) -> bool:
        """Whether any batch gets this kind of augmentation, one of those in `OFF`."""
        return any(getattr(self, name) != off for name, off in OFF[kind].items())


def _refuse_bad_range(name: str, limits: tuple[float, float], most: float) -> None:
    if not 0 < limits[0] <= limits[1] <= most or limits[1] == float("inf"):
        upper = "" if most == float("inf") else f", {most:g} at most"
        raise FeedrateError(f"{name} is {limits}: it must be two numbers above 0, the smaller first{upper}")
