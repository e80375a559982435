"""How weights move: the settings of optimizer, learning rate, loss and clipping."""

from dataclasses import dataclass
from typing import Literal

from loaders.errors import FeedrateError

from .bounds import above_0, at_least, between


@dataclass(frozen=True)
class OptimConfig:
    """How weights move. The learning rate is the peak, for the global batch as it is: nothing is rescaled."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.125
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = 5e-5
    """On weights of two and more dimensions; biases and norms never decay."""
    schedule: Literal["onecycle", "cosine"] = "cosine"
    warmup_epochs: float = 2.0
    """Linear rise from 0, for cosine."""
    rise_share: float = 0.3
    """Share of the run in which the rate rises, for onecycle."""
    label_smoothing: float = 0.1
    clip_norm: float = 0.0
    """Largest norm of all gradients together; 0: no clipping."""
    accumulate: int = 1
    """Batches whose gradients make one update together, their mean taken; the schedule counts updates."""

    def __post_init__(self) -> None:
        at_least(0, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs, clip_norm=self.clip_norm)
        between(0, 1, momentum=self.momentum, label_smoothing=self.label_smoothing, rise_share=self.rise_share)
        above_0(learning_rate=self.learning_rate)
        at_least(1, accumulate=self.accumulate)
        if self.nesterov and self.momentum == 0:
            raise FeedrateError("nesterov is on and momentum is 0: Nesterov's step needs momentum above 0")
