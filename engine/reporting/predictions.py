"""What a model takes each image of an evaluation for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loaders.api import Batch

from ..dist import Ranks
from .kept_rows import KeptRows


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


@dataclass(frozen=True)
class PredictionTable(Sequence[Prediction]):
    """Of very many samples, as arrays: a `Prediction` is made when it is asked for.

    ids            int64 [N], ascending;  labels  int64 [N]
    classes        int64 [N, K], the likeliest first;  probabilities  float [N, K]
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        classes, shares = self.classes[index].tolist(), self.probabilities[index].tolist()
        runners_up = tuple(zip(classes[1:], shares[1:], strict=True))
        return Prediction(int(self.ids[index]), int(self.labels[index]), classes[0], shares[0], runners_up)


class Predictions:
    """Keeps the `top_k` likeliest classes of every image of an evaluation, in order; for `evaluate(…, watch=…)`.

    They stay on the device.
    """

    def __init__(self, top_k: int = 1) -> None:
        self._num_runners_up = top_k - 1
        self._whole, self._probability = KeptRows(), KeptRows()

    def __call__(self, batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
        """Take a batch with its padding, so that all ranks keep equally many rows."""
        ids = batch.ids.to(logits.device)
        first = predicted[:, None]  # of equal logits, `topk` of all might take another
        others = logits.scatter(1, first, -torch.inf).topk(self._num_runners_up, dim=1).indices
        likeliest = torch.cat([first, others], dim=1)
        self._whole.add(torch.cat([ids[:, None], batch.labels[:, None], likeliest], dim=1))
        self._probability.add(logits.softmax(dim=1).gather(1, likeliest))

    def read(self, ranks: Ranks) -> Sequence[Prediction]:
        """Of all ranks' images, in order of id, on the main rank; none on the others. Every rank must call it."""
        wholes = ranks.gather_tensor(self._whole.read())
        probabilities = ranks.gather_tensor(self._probability.read())
        if not wholes:
            return ()
        whole, shares = torch.cat(wholes).cpu().numpy(), torch.cat(probabilities).cpu().numpy()
        order = np.argsort(whole[:, 0], kind="stable")
        order = order[np.count_nonzero(whole[:, 0] < 0) :]  # what comes first is padding
        whole, shares = whole[order], shares[order]
        return PredictionTable(whole[:, 0], whole[:, 1], whole[:, 2:], shares)
