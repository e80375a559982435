"""One training step: forward, backward, clip, update."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from loaders.counter_random import stream_key

from .augment import Normalize
from .augment.batch_transform import UNCHANGED, BatchTransform
from .config import Config
from .dist import Ranks
from .schedule import Schedule
from .state import States

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The arithmetic of forward and backward: float32, TensorFloat-32, or mixed with bfloat16 or float16.

    float16 needs its loss scaled so that small gradients survive; `scaler` does nothing in the other three.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = _AUTOCAST_DTYPES.get(name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        matmul = "high" if name == "tf32" else "highest"
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = name == "tf32"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context the forward pass runs in."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device_type, self._dtype)


class TrainStep:
    """Moves a model by one batch. What it returns stays on the device, and it never waits for one, except in fp16,
    where torch's GradScaler looks on the host whether gradients overflowed.

    The randomness of a step (dropout and its like) is seeded by (seed, step, rank), so none has to be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        normalize: Normalize,
        config: Config,
        ranks: Ranks,
        batch_transform: BatchTransform = UNCHANGED,
    ) -> None:
        self.module = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.normalize = normalize
        self.precision = Precision(config.execution.precision, ranks.device)
        self._batch_transform = batch_transform
        self._config = config
        self._ranks = ranks
        self._model = model if ranks.world_size == 1 else _distributed(model, ranks)

    def states(self) -> States:
        """What of a step a checkpoint keeps, by its name there."""
        return {"model": self.module, "optimizer": self.optimizer, "scaler": self.precision.scaler}

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on uint8 [B, 3, H, W] images, int64 [B] labels and, on the host, int64 [B] ids as global step `step`.

        Returns, on the device: the batch's mean loss before the update (float32 scalar), and how many of its images
        the model had right (int64 scalar).
        """
        torch.manual_seed(stream_key(self._config.seed, step, f"step of rank {self._ranks.rank}"))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(step)
        pixels = self._batch_transform.before_normalising(images, ids, step)
        inputs, targets = self._batch_transform.after_normalising(self.normalize(pixels), labels, ids, step)
        loss, logits = self._forward(inputs, targets)
        scaler = self.precision.scaler
        torch.autograd.backward(scaler.scale(loss))
        if self._config.optim.clip_norm:
            scaler.unscale_(self.optimizer)  # the limit is meant for true gradients
            nn.utils.clip_grad_norm_(self.module.parameters(), self._config.optim.clip_norm)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), (logits.argmax(dim=1) == labels).sum()

    def warm_up(self, images_shape: torch.Size, num_classes: int) -> None:
        """Make a distributed model reduce its gradients in their final order from the first real step on.

        DistributedDataParallel regroups gradients after the first backward pass it sees. Without a throwaway one,
        a fresh run's first step and a resumed run's first step would each sum in an order the other does not, and on
        3 ranks or more the sums would differ in their last bits.
        """
        if self._ranks.world_size == 1:
            return
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        self.module.train()
        images = torch.zeros(images_shape, dtype=torch.uint8, device=self._ranks.device)
        labels = torch.arange(images_shape[0], device=self._ranks.device) % num_classes
        loss, _ = self._forward(self.normalize(images), labels)
        torch.autograd.backward(loss)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.module.named_buffers():
                buffer.copy_(buffers[name])

    def _forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self.precision.autocast():
            logits = self._model(inputs)
            smoothing = self._config.optim.label_smoothing
            loss = functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        return loss, logits


def _distributed(model: nn.Module, ranks: Ranks) -> nn.Module:
    device_ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)
