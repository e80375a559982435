"""What an evaluation counts for each class, in whole numbers, and the figures that follow from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..dist import Ranks

MAX_CONFUSION_CLASSES = 2000  # beyond, the matrix alone would take 32 MB and more, and nobody could read it

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """int64 [C] each: images of the class, those of them taken for it, and all images taken for it.

    `confusion` is int64 [C, C], row: what an image is, column: what it is taken for; None for more than 2,000 classes.
    """

    num_samples: Ints
    num_right: Ints
    num_predicted: Ints
    confusion: Ints | None

    @property
    def accuracies(self) -> Floats:
        """float64 [C]: the share of a class's images taken for it (recall); NaN where there is no image of it."""
        return _ratio(self.num_right, self.num_samples)

    @property
    def f1(self) -> Floats:
        """float64 [C]: harmonic mean of precision and recall; NaN for a class without images, taken or real."""
        return _ratio(2 * self.num_right, self.num_samples + self.num_predicted)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur or are answered, each counting alike; what torchmetrics' macro is."""
        occurring = self.f1[(self.num_samples + self.num_predicted) > 0]
        return float(occurring.mean()) if len(occurring) else 0.0

    def rows(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """One JSON object a class; null stands for what no image tells."""
        figures = zip(
            names, self.num_samples, self.num_right, self.num_predicted, self.accuracies, self.f1, strict=True
        )
        return [
            {
                "class": name,
                "num_samples": int(samples),
                "num_right": int(right),
                "num_predicted": int(predicted),
                "accuracy": None if np.isnan(accuracy) else float(accuracy),
                "f1": None if np.isnan(f1) else float(f1),
            }
            for name, samples, right, predicted, accuracy, f1 in figures
        ]


def count_classes(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int, ranks: Ranks) -> ClassCounts:
    """Counts over all ranks, for this rank's int64 [n] answers and labels. Every rank must call it."""
    # not by torchmetrics, whose import takes some four seconds of every run; tests hold it to torchmetrics' figures
    if num_classes <= MAX_CONFUSION_CLASSES:
        pairs = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        confusion: Ints = ranks.sum(pairs.reshape(num_classes, num_classes)).cpu().numpy()
        return ClassCounts(confusion.sum(axis=1), confusion.diagonal().copy(), confusion.sum(axis=0), confusion)
    counted = (labels, labels[predicted == labels], predicted)
    counts = torch.stack([torch.bincount(classes, minlength=num_classes) for classes in counted])
    summed: Ints = ranks.sum(counts).cpu().numpy()
    return ClassCounts(summed[0], summed[1], summed[2], None)


def _ratio(part: Ints, whole: Ints) -> Floats:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
