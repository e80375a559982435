"""What a model takes each image of an evaluation for."""

from dataclasses import dataclass

import torch

from loaders.api import Batch

from ..dist import Ranks


@dataclass(frozen=True)
class Prediction:
    """Of one sample: its number in the split, its label, the class it is taken for, and the probability of that.

    runners_up  (class, probability) of the next likely ones, the likeliest first
    """

    id: int
    label: int
    predicted: int
    probability: float
    runners_up: tuple[tuple[int, float], ...] = ()


class Predictions:
    """Keeps the `top_k` likeliest classes of every image of an evaluation, in order; for `evaluate(…, watch=…)`.

    They stay on the device.
    """

    def __init__(self, top_k: int = 1) -> None:
        self._num_runners_up = top_k - 1
        self._whole: list[torch.Tensor] = []
        self._probability: list[torch.Tensor] = []

    def __call__(self, batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
        """Take a batch with its padding, so that all ranks keep equally many rows."""
        ids = batch.ids.to(logits.device)
        first = predicted[:, None]  # of equal logits, `topk` of all might take another
        others = logits.scatter(1, first, -torch.inf).topk(self._num_runners_up, dim=1).indices
        likeliest = torch.cat([first, others], dim=1)
        self._whole.append(torch.cat([ids[:, None], batch.labels[:, None], likeliest], dim=1))
        self._probability.append(logits.softmax(dim=1).gather(1, likeliest))

    def read(self, ranks: Ranks) -> list[Prediction]:
        """Of all ranks' images, in order of id, on the main rank; [] on the others. Every rank must call it."""
        wholes = ranks.gather_tensor(torch.cat(self._whole))
        probabilities = ranks.gather_tensor(torch.cat(self._probability))
        found = [
            Prediction(sample, label, classes[0], shares[0], tuple(zip(classes[1:], shares[1:], strict=True)))
            for whole, of_it in zip(wholes, probabilities, strict=True)
            for (sample, label, *classes), shares in zip(whole.tolist(), of_it.tolist(), strict=True)
            if sample >= 0  # the others are padding
        ]
        return sorted(found, key=lambda prediction: prediction.id)
