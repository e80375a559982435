"""Evaluation: every sample counted once, and the same integers on any number of ranks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from loaders.api import Batch, Loader

from .augment import Normalize
from .dist import Ranks
from .profiler.step_clock import StageSpan, step_clock
from .reporting.class_counts import ClassCounts, count_classes
from .reporting.kept_rows import KeptRows
from .safeguards.memory import memory_in_use, within_memory
from .step import Precision

Answer = Callable[[nn.Module, torch.Tensor], torch.Tensor]
Watch = Callable[[Batch, torch.Tensor, torch.Tensor], None]

_FIRST, _REST = "first batch", "other batches"  # timed apart


@dataclass(frozen=True)
class Evaluation:
    """Counts over a whole split; accuracies are shares of 1.

    inference_s_per_image  device time of the model's forward pass over an image, mean of all batches but each rank's
                           first; None where there is no other
    first_inference_s      of the first batches, mean over the ranks: what is compiled, loaded and tried out
    """

    num_samples: int
    num_top1: int
    num_top5: int
    loss: float
    classes: ClassCounts
    inference_s_per_image: float | None
    first_inference_s: float

    @property
    def top1(self) -> float:
        return self.num_top1 / self.num_samples

    @property
    def top5(self) -> float:
        return self.num_top5 / self.num_samples

    def scores(self, prefix: str) -> dict[str, float]:
        """The figures of the whole split, each name beginning with `prefix`, as they are logged."""
        figures = {"loss": self.loss, "top1": self.top1, "top5": self.top5, "macro_f1": self.classes.macro_f1}
        return {prefix + name: value for name, value in figures.items()}

    def report(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """All of it but the confusion matrix and the times, as JSON data."""
        counts = {"num_samples": self.num_samples, "num_top1": self.num_top1, "num_top5": self.num_top5}
        return {**counts, **self.scores(""), "classes": self.classes.rows(class_names)}


def plain_answer(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Logits [B, classes] of normalised [B, 3, H, W] inputs."""
    logits: torch.Tensor = model(inputs)
    return logits.float()


def flip_averaged_answer(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The mean of the logits of each image and of its mirror image."""
    return (plain_answer(model, inputs) + plain_answer(model, inputs.flip(3))) / 2


def shift_averaged_answer(answer: Answer, shift_px: int, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Half of what `answer` gives to each image, a quarter of what to it moved up and left, a quarter down and right.

    All by `shift_px`; what comes in at the border is what is there, mirrored. As airbench's test-time augmentation.
    """
    height, width = inputs.shape[2:]
    wider = functional.pad(inputs, (shift_px,) * 4, "reflect")
    up_left, down_right = wider[:, :, 2 * shift_px :, 2 * shift_px :], wider[:, :, :height, :width]
    return answer(model, inputs) / 2 + (answer(model, up_left) + answer(model, down_right)) / 4


def answer_of(flips: bool, shift_px: int = 0) -> Answer:
    """How an evaluation asks the model."""
    answer = flip_averaged_answer if flips else plain_answer
    return partial(shift_averaged_answer, answer, shift_px) if shift_px else answer


def watched_by(*all_of_them: Watch) -> Watch:
    """Shows every batch to each of them."""

    def watch(batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
        for one in all_of_them:
            one(batch, logits, predicted)

    return watch


def unwatched(batch: Batch, logits: torch.Tensor, predicted: torch.Tensor) -> None:
    """For evaluations whose single answers nobody wants."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    normalize: Normalize,
    precision: Precision,
    ranks: Ranks,
    answer: Answer = plain_answer,
    watch: Watch = unwatched,
) -> Evaluation:
    """Run `model` over one epoch of an evaluation loader.

    Every forward pass has the loader's one padded shape and every batch the same samples whatever the number of
    ranks, so that each image's result is the same to the bit; padding is cut off before anything is counted. `watch`
    is shown every batch of this rank with its float32 [B, classes] logits and the int64 [B] classes that are counted,
    all padded: of equal logits one class is taken, the same for all who look. Raises FeedrateError where the memory
    does not suffice.
    """
    ranks.same_buffers(model)
    was_training = model.training
    model.eval()
    num_top5 = torch.zeros((), dtype=torch.int64, device=ranks.device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=ranks.device)
    clock, predicted, labels_seen, num_rows = step_clock(ranks.device.type), KeptRows(), KeptRows(), 0
    for batch in loader.epoch(0):
        told = partial(_out_of_memory, batch.images.shape, ranks.device)
        inputs = within_memory(partial(normalize, batch.images), told)
        with clock.span(_REST if num_rows else _FIRST), precision.autocast():
            padded = within_memory(partial(answer, model, inputs), told)
        best = padded.topk(min(5, padded.shape[1]), dim=1).indices
        watch(batch, padded, best[:, 0])
        logits, labels, best = (rows[: batch.num_valid] for rows in (padded, batch.labels, best))
        num_top5 += (best == labels[:, None]).sum()
        loss_sum += functional.cross_entropy(logits, labels, reduction="none").double().sum()
        predicted.add(best[:, 0])
        labels_seen.add(labels)
        num_rows = len(padded)
    model.train(was_training)
    ranks.finish()  # or the last spans would be missing
    classes = count_classes(predicted.read(), labels_seen.read(), padded.shape[1], ranks)
    return _sum_up(classes, num_top5, loss_sum, _inference_times(clock.read(), num_rows, ranks), ranks)


def _out_of_memory(images_shape: torch.Size, device: torch.device) -> str:
    num_images, _, _, size_px = images_shape
    return (
        f"out of memory in evaluation: {num_images} images of {size_px} px a rank do not fit, {memory_in_use(device)};"
        " use a smaller --data.eval-batch-size-per-rank"
    )


def _inference_times(spans: dict[str, StageSpan], num_rows: int, ranks: Ranks) -> tuple[float | None, float]:
    """Seconds an image without the first batches, and of the first batches. All batches have `num_rows` rows."""
    of_rest = spans.get(_REST)
    own = [spans[_FIRST].wall_s, *((of_rest.wall_s, of_rest.count * num_rows) if of_rest else (0.0, 0)), 1]
    first, rest, num_rest, num_ranks = ranks.sum(torch.tensor(own, dtype=torch.float64, device=ranks.device)).tolist()
    return rest / num_rest if num_rest else None, first / num_ranks


def _sum_up(
    classes: ClassCounts,
    num_top5: torch.Tensor,
    loss_sum: torch.Tensor,
    times: tuple[float | None, float],
    ranks: Ranks,
) -> Evaluation:
    num_samples = int(classes.num_samples.sum())
    return Evaluation(
        num_samples,
        int(classes.num_right.sum()),
        int(ranks.sum(num_top5).item()),
        ranks.sum(loss_sum).item() / num_samples,
        classes,
        *times,
    )
