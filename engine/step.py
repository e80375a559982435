"""One training step: forward, backward, and where a window of batches closes, clip and update."""

import gc
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from loaders.counter_random import stream_key

from .augment import Normalize
from .augment.batch_transform import UNCHANGED, BatchTransform
from .checkpointing.state import States
from .compiled import compiled, graphs_expected, warm_up_passes
from .config import Config
from .dist import Ranks
from .optimisation.frozen_epochs import FrozenEpochs
from .optimisation.lookahead import Lookahead
from .optimisation.open_gradients import OpenGradients
from .optimisation.optim import clip_gradients
from .optimisation.schedule import Schedule
from .optimisation.windows import Windows
from .profiler.step_clock import step_clock
from .safeguards.determinism import told_where_there_is_none
from .safeguards.memory import is_out_of_memory, memory_in_use, release_memory, within_memory

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The arithmetic of forward and backward: float32, TensorFloat-32, or mixed with bfloat16 or float16.

    float16 needs its loss scaled so that small gradients survive; `scaler` does nothing in the other three.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = _AUTOCAST_DTYPES.get(name)
        self._scales = name == "fp16"
        self.scale_anew()
        matmul = "high" if name == "tf32" else "highest"
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = name == "tf32"

    def scale_anew(self) -> None:
        """Begin with a scaler as at the start: one that an update broke off in refuses another."""
        self.scaler = torch.amp.GradScaler(self._device_type, enabled=self._scales)

    def state_dict(self) -> dict[str, Any]:
        """The scale of the loss and what moves it; empty where there is none."""
        return self.scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take up the scale; after steps of another precision, which left none, it is found anew."""
        if state_dict:
            self.scaler.load_state_dict(state_dict)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context the forward pass runs in."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device_type, self._dtype)


class TrainStep:
    """Moves a model by one batch, or where batches are accumulated, by the last one of each window. What it returns
    stays on the device, and it never waits for one, except in fp16, where torch's GradScaler looks on the host
    whether gradients overflowed.

    The randomness of a step (dropout and its like) is seeded by (seed, step, rank), so none has to be saved. The
    gradients of a window that is not closed yet are state.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        normalize: Normalize,
        config: Config,
        ranks: Ranks,
        windows: Windows = Windows(),
        batch_transform: BatchTransform = UNCHANGED,
    ) -> None:
        self.module = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.normalize = normalize
        self.windows = windows
        self.gradients = OpenGradients(model, ranks)
        self.frozen = FrozenEpochs(model, config.optim.frozen_epochs, config.epochs)
        self.lookahead = Lookahead(model, config.optim, config.epochs * windows.updates_per_epoch)
        self.clock = step_clock(ranks.device.type)
        self.precision = Precision(config.execution.precision, ranks.device)
        self._batch_transform = batch_transform
        self._config = config
        self._ranks = ranks
        # in this order: compiling what is distributed already would leave all of it uncompiled (torch 2.15)
        self._alone = compiled(model, config, ranks, self.frozen.num_states) if config.execution.compile else model
        self._model: nn.Module = self._alone
        self._distributed: DistributedDataParallel | None = None
        self._distribute()
        self._warm: set[torch.Size] = set()

    def begin_epoch(self, epoch: int) -> bool:
        """Train from now on what is trained in this epoch. True if that is not what was, and first steps are again to
        be warmed up for. To be called between windows, on every rank."""
        is_another = self.frozen.begin(epoch)
        self.module.train()
        if is_another:
            self._warm.clear()
            if self._distributed is not None:
                self._model, self._distributed = self._alone, None
                gc.collect()  # its hooks would exchange gradients of what now rests, or not of what now is trained
                self._distribute()
        return is_another

    def states(self) -> States:
        """What of a step a checkpoint keeps, by its name there."""
        return {
            "model": self.module,
            "optimizer": self.optimizer,
            "scaler": self.precision,
            "gradients": self.gradients,
            **({"lookahead": self.lookahead} if self._config.optim.lookahead_every_updates else {}),
        }

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Train on uint8 [B, 3, H, W] images, int64 [B] labels and, on the host, int64 [B] ids as global step `step`.

        Returns, on the device: the batch's mean loss before the update (float32 scalar), and how many of its images
        the model had right (int64 scalar). Raises FeedrateError where the memory does not suffice, or no kernel is
        deterministic and all have to be.
        """
        train = partial(self._train_on, images, labels, ids, step)
        return within_memory(train, partial(self._out_of_memory, images.shape))

    def inputs_of(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model is given of a batch as global step `step`, and its answers: normalised and augmented.

        A pure function of the seed and its arguments, so that a batch can be had again as it was trained on.
        """
        pixels = self._batch_transform.before_normalising(images, ids, step)
        return self._batch_transform.after_normalising(self.normalize(pixels), labels, ids, step)

    def learning_rate(self, step: int) -> float:
        """The rate of the update that this step belongs to: the schedule counts updates."""
        return self.schedule(self.windows.update_of(step))

    def warm_up(self, images_shape: torch.Size, num_classes: int) -> float:
        """Do what only the first step with images of this shape does, and leave the state as it was. Returns seconds.

        DistributedDataParallel regroups gradients after the first backward pass it sees. Without a throwaway one,
        a fresh run's first step and a resumed run's first step would each sum in an order the other does not, and on
        3 ranks or more the sums would differ in their last bits. A compiled model is compiled here, for each size of
        images alone: code for any size would have other bits, and a resumed run would not have met the first size.

        Raises FeedrateError as a step does.
        """
        needed = self._config.execution.compile or (self._distributed is not None and not self._warm)
        if images_shape in self._warm or not needed:
            return 0.0
        started = time.perf_counter()
        self._warm.add(images_shape)
        warm = partial(self._warm_up, images_shape, num_classes)
        within_memory(warm, partial(self._out_of_memory, images_shape))
        return time.perf_counter() - started

    @told_where_there_is_none()
    def _warm_up(self, images_shape: torch.Size, num_classes: int) -> None:
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        gradients = [(parameter, parameter.grad) for parameter in self.module.parameters()]
        self.optimizer.zero_grad(set_to_none=True)
        self.module.train()
        images = torch.zeros(images_shape, dtype=torch.uint8, device=self._ranks.device)
        labels = torch.arange(images_shape[0], device=self._ranks.device) % num_classes
        with graphs_expected(self._config.execution.cuda_graphs and self._ranks.device.type == "cuda"):
            for closes in (False, True) if self.windows.accumulate > 1 else (True,) * warm_up_passes(self._config):
                with self._exchange(closes):
                    loss, _ = self._forward(self._model, self.normalize(images), labels)
                    torch.autograd.backward(loss)
                if self.windows.accumulate == 1:
                    self.optimizer.zero_grad(set_to_none=True)  # as between steps
        loss.item()  # waits until a GPU is done
        with torch.no_grad():
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for name, buffer in self.module.named_buffers():
                buffer.copy_(buffers[name])

    def fits(self, num_images: int, size_px: int) -> bool:
        """Whether a whole step of this rank alone, with so many images, fits into memory. It trains on black images:
        the model is thereafter good for nothing."""
        device = self._ranks.device
        try:
            images = torch.zeros((num_images, 3, size_px, size_px), dtype=torch.uint8, device=device)
            labels = torch.zeros(num_images, dtype=torch.int64, device=device)
            alone = self._model if self._distributed is None else self.module
            loss, _ = self._forward(alone, self.normalize(images), labels)
            torch.autograd.backward(self.precision.scaler.scale(loss))
            self._update(0)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fit = False
            self.precision.scale_anew()
        else:
            fit = True
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(device)
        return fit

    def unsynchronised(self) -> AbstractContextManager[Any]:
        """What steps run in to exchange no gradients: to see what the exchange costs. Ranks then drift apart."""
        return nullcontext() if self._distributed is None else self._distributed.no_sync()

    @told_where_there_is_none()
    def _train_on(
        self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(stream_key(self._config.seed, step, f"step of rank {self._ranks.rank}"))
        num_left = self.windows.left_at(step)
        closes, length = num_left == 1, self.gradients.length_with(num_left)
        with self._exchange(closes):
            with self.clock.span("prepare"):
                inputs, targets = self.inputs_of(images, labels, ids, step)
            with self.clock.span("forward"):
                loss, logits = self._forward(self._model, inputs, targets)
            with self.clock.span("backward"):
                # all batches of training are equally large, so the mean over a window is the mean of their means
                torch.autograd.backward(self.precision.scaler.scale(loss / length))
        if closes:
            self._update(step)
            self.gradients.close()
        return loss.detach(), (logits.argmax(dim=1) == labels).sum()

    def _exchange(self, closes: bool) -> AbstractContextManager[Any]:
        """What forward and backward run in: ranks exchange gradients once a window, where it closes."""
        return nullcontext() if closes else self.unsynchronised()

    def _update(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group.get("lr_scale", 1.0)
        scaler = self.precision.scaler
        with self.clock.span("clip"):
            clip_gradients(self.module.parameters(), self.optimizer, scaler, self._config.optim)
        with self.clock.span("optimizer"):
            scaler.step(self.optimizer)
            scaler.update()
            self.lookahead.after_update(self.windows.update_of(step))
            self.optimizer.zero_grad(set_to_none=True)

    def _forward(
        self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self.precision.autocast():
            logits = model(inputs)
            smoothing = self._config.optim.label_smoothing
            loss = functional.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        return loss, logits

    def _distribute(self) -> None:
        """Have the model exchange, with other ranks if there are any, the gradients of what is trained now."""
        if self._ranks.world_size > 1:
            device_ids = [self._ranks.device.index] if self._ranks.device.type == "cuda" else None
            self._model = self._distributed = DistributedDataParallel(self._alone, device_ids=device_ids)

    def _out_of_memory(self, images_shape: torch.Size) -> str:
        """A sentence that says what did not fit, and what would."""
        device, num_images, size_px = self._ranks.device, images_shape[0], images_shape[-1]
        used = memory_in_use(device)
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(device)
        told = (
            f"out of memory: a batch of {num_images * self._ranks.world_size} ({num_images} images of {size_px} px"
            f" a rank) does not fit, {used}"
        )
        # nothing can be tried where an exchange of gradients was broken off, nor beside memory that graphs keep
        if self._distributed is not None or self._config.execution.cuda_graphs:
            return f"{told}; use a smaller --data.batch-size: tools/find_batch_size.py finds the largest that fits"
        fitting = num_images // 2
        while fitting and not self.fits(fitting, size_px):
            fitting //= 2
        if not fitting:
            return f"{told}; not even 1 image a rank fits: use smaller images or another model"
        return (
            f"{told}; {fitting} a rank fit: use --data.batch-size {fitting * self._ranks.world_size}, with"
            f" --optim.accumulate for larger updates; tools/find_batch_size.py finds the largest that fits"
        )
