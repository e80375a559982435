"""The sizes of images a model must take, and what it says to them before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from loaders.errors import FeedrateError


@dataclass(frozen=True)
class ImageSizes:
    """Sides of square images in pixels, and images a rank and batch."""

    training_px: tuple[int, ...]
    evaluation_px: int
    training_batch: int = 2
    evaluation_batch: int = 1

    @property
    def are_one(self) -> bool:
        return set(self.training_px) == {self.evaluation_px}


def refuse_sizes(model: nn.Module, name: str, num_classes: int, sizes: ImageSizes) -> None:
    """Raise FeedrateError if `model` cannot be trained or evaluated on images of these sizes.

    Asked by shapes alone, on torch's meta device: nothing is computed, no statistic of a batch norm moves.
    """
    was_training = model.training
    try:
        for side in sorted(set(sizes.training_px)):
            model.train()
            _refuse(model, f"{name} cannot be trained", num_classes, sizes.training_batch, side)
        model.eval()
        _refuse(model, f"{name} cannot be evaluated", num_classes, sizes.evaluation_batch, sizes.evaluation_px)
    finally:
        model.train(was_training)


def shape_only(model: nn.Module, batch: int, side: int) -> torch.Tensor:
    """What `model` gives for float [batch, 3, side, side], on the meta device: a shape and a type without numbers."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    with torch.no_grad(), attributes_kept(model):
        images = torch.empty(batch, 3, side, side, device="meta")
        return functional_call(model, meta, (images,))  # type: ignore[no-any-return]


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """What a forward pass within sets on a module, such as positions it works out once, is forgotten."""
    holders = [vars(module) for module in model.modules()]
    # what a module registers goes into dicts of its own
    holders += [held for attributes in holders for held in attributes.values() if isinstance(held, dict)]
    before = [(holder, dict(holder)) for holder in holders]
    try:
        yield
    finally:
        for holder, then in before:
            holder.clear()
            holder.update(then)


def _refuse(model: nn.Module, claim: str, num_classes: int, batch: int, side: int) -> None:
    try:
        try:
            logits = shape_only(model, batch, side)
        except Exception as error:
            if not _is_of_meta(error):
                raise
            # a model with something that has no shape-only form is asked in earnest
            batch = 1
            with torch.no_grad(), attributes_kept(model):
                logits = model.eval()(torch.zeros(batch, 3, side, side))
    except Exception as error:  # people's own models have any
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise FeedrateError(
            f"{claim} on {batch} images of {side} × {side} px at a time ({reason[0].rstrip('.')}):"
            " --data.size-px and --data.eval-size-px change the images, --model.name the model"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (batch, num_classes):
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise FeedrateError(
            f"{claim}: it gives {shape} for {batch} images, and must give one score for each of {num_classes} classes"
        )


def _is_of_meta(error: Exception) -> bool:
    """Whether it says that something cannot be done without numbers, rather than that shapes do not fit."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower()
