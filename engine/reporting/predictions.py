"""What a model takes each image of an evaluation for."""

from dataclasses import dataclass

import torch

from loaders.api import Batch

from ..dist import Ranks


@dataclass(frozen=True)
class Prediction:
    """Of one sample: its number in the split, its label, the class it is taken for, and the probability of that."""

    id: int
    label: int
    predicted: int
    probability: float


class Predictions:
    """Keeps the answer to every image of an evaluation; for `evaluate(…, watch=…)`. They stay on the device."""

    def __init__(self) -> None:
        self._whole: list[torch.Tensor] = []
        self._probability: list[torch.Tensor] = []

    def __call__(self, batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
        """Take a batch with its padding, so that all ranks keep equally many rows."""
        ids = batch.ids.to(logits.device)
        self._whole.append(torch.stack([ids, batch.labels, predicted], dim=1))
        self._probability.append(logits.softmax(dim=1).gather(1, predicted[:, None])[:, 0])

    def read(self, ranks: Ranks) -> list[Prediction]:
        """Of all ranks' images, in order of id, on the main rank; [] on the others. Every rank must call it."""
        wholes = ranks.gather_tensor(torch.cat(self._whole))
        probabilities = ranks.gather_tensor(torch.cat(self._probability))
        found = [
            Prediction(sample, label, predicted, probability)
            for whole, of_it in zip(wholes, probabilities, strict=True)
            for (sample, label, predicted), probability in zip(whole.tolist(), of_it.tolist(), strict=True)
            if sample >= 0  # the others are padding
        ]
        return sorted(found, key=lambda prediction: prediction.id)
