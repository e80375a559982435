"""A few evaluated images with what the model took them for, to look at."""

import torch

from loaders.api import Batch


class PredictionSample:
    """Keeps the first images of an evaluation; for `evaluate(…, watch=…)`. They stay on the device until looked at."""

    def __init__(self, num_images: int) -> None:
        self._num_missing = num_images
        self._images: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []
        self._predicted: list[torch.Tensor] = []

    def __call__(self, batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
        """Take from a batch what is still missing."""
        taken = slice(min(self._num_missing, batch.num_valid))
        if taken.stop == 0:
            return
        self._num_missing -= taken.stop
        self._images.append(batch.images[taken].clone())  # the loader may use the batch's memory again
        self._labels.append(batch.labels[taken].clone())
        self._predicted.append(predicted[taken])

    def read(self) -> list[tuple[torch.Tensor, int, int]]:
        """uint8 [3, H, W] on the CPU, label, and prediction, of each image kept. Waits for the device."""
        if not self._images:
            return []
        images = torch.cat(self._images).cpu()
        labels, predicted = torch.cat(self._labels).tolist(), torch.cat(self._predicted).tolist()
        return list(zip(images, labels, predicted, strict=True))
