"""Evaluation that counts every image exactly once, with the same integers on any number of ranks."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from loaders.api import Loader

from .augment import Normalize
from .dist import Ranks
from .step import Precision


@dataclass(frozen=True)
class Evaluation:
    """Counts over a whole split; accuracies are shares of 1."""

    num_samples: int
    num_top1: int
    num_top5: int
    loss: float

    @property
    def top1(self) -> float:
        return self.num_top1 / self.num_samples

    @property
    def top5(self) -> float:
        return self.num_top5 / self.num_samples


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Loader, normalize: Normalize, precision: Precision, ranks: Ranks) -> Evaluation:
    """Run `model` over one epoch of an evaluation loader.

    Every forward pass has the loader's one padded shape and every batch the same samples whatever the number of
    ranks, so that each image's result is the same to the bit; padding is cut off before anything is counted.
    """
    ranks.same_buffers(model)
    was_training = model.training
    model.eval()
    counts = torch.zeros(3, dtype=torch.int64, device=ranks.device)  # samples, top-1, top-5
    loss_sum = torch.zeros((), dtype=torch.float64, device=ranks.device)
    for batch in loader.epoch(0):
        with precision.autocast():
            logits = model(normalize(batch.images))
        logits, labels = logits[: batch.num_valid].float(), batch.labels[: batch.num_valid]
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        counts += torch.stack([labels.new_tensor(batch.num_valid), best[:, :1].sum(), best.sum()])
        loss_sum += functional.cross_entropy(logits, labels, reduction="none").double().sum()
    model.train(was_training)
    num_samples, num_top1, num_top5 = ranks.sum(counts).tolist()
    return Evaluation(num_samples, num_top1, num_top5, ranks.sum(loss_sum).item() / num_samples)
