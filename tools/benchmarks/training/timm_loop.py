"""The training loop of timm's train.py, on timm's own building blocks.

That script is in no package of timm's, neither the wheel nor the source distribution; this does the same operations in
the same order, written anew: its task and loss with label smoothing, its optimizer without decay of norms and biases,
its schedule stepped by the update, its meters, the loss read by the host in every step, a line every fifty steps, and
in float16, which is what its --amp means, the loss scaled as its NativeScaler does. Where
a default would make it do other work (colour jitter, random filter, Nesterov) it is set to the common one.
"""

import itertools
import logging
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import AverageMeter
from torch import nn
from torchvision.models import get_model

from .job import Job
from .sides import LEARNING_RATE, MOMENTUM, SMOOTHING, WEIGHT_DECAY
from .torchvision_loop import AUTOCAST, TensorPair, laid_out, resident
from .window import Window, WindowOver

_LOG_EVERY = 50
_NUM_EPOCHS = 10

_log = logging.getLogger("train")


def train(job: Job, window: Window, feed: str) -> nn.Module:
    """Train until the window is over. Returns the model, which is torchvision's: all sides train the same."""
    torch.set_num_threads(job.num_threads)
    torch.backends.cudnn.benchmark = True
    logging.basicConfig(level=logging.INFO)
    device = torch.device(job.device)
    num_classes = len([path for path in Path(job.images).iterdir() if path.is_dir()])
    model = laid_out(get_model(job.model, weights=None, num_classes=num_classes).to(device), job)
    task = ClassificationTask(model, LabelSmoothingCrossEntropy(SMOOTHING), device=device, verbose=False)
    optimizer = create_optimizer_v2(
        model, opt="momentum", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
    )
    batches = itertools.repeat(resident(job, num_classes)) if feed == "resident" else _loader(job, device)
    scaler = torch.amp.GradScaler(job.device, enabled=job.precision == "fp16")
    schedule, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=_NUM_EPOCHS, updates_per_epoch=1)
    try:
        for epoch in itertools.count():
            timed = window.over(batches, lambda pair: len(pair[1]))
            _train_one_epoch(epoch, task, timed, optimizer, scaler, schedule, job)
    except WindowOver:
        pass
    return model


def _loader(job: Job, device: torch.device) -> Iterable[TensorPair]:
    samples = create_dataset("", root=job.images, is_training=True)
    loader: Iterable[TensorPair] = create_loader(
        samples,
        input_size=(3, job.size_px, job.size_px),
        batch_size=job.batch_size,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=job.num_workers,
        pin_memory=job.device == "cuda",
        device=device,
        use_prefetcher=True,
    )
    return loader


def _train_one_epoch(
    epoch: int,
    task: ClassificationTask,
    batches: Iterable[TensorPair],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    schedule: object,
    job: Job,
) -> None:
    update_time, data_time, losses = AverageMeter(), AverageMeter(), AverageMeter()
    task.train()
    updated_s = asked_s = time.time()
    optimizer.zero_grad()
    for number, (images, labels) in enumerate(batches):
        if job.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        data_time.update(time.time() - asked_s)
        with torch.autocast(job.device, AUTOCAST[job.precision], enabled=job.precision != "fp32"):
            loss = task(images, labels)["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.update(loss.item(), images.size(0))
        optimizer.zero_grad()
        now_s = time.time()
        update_time.update(now_s - updated_s)
        updated_s = now_s
        if number % _LOG_EVERY == 0:
            rates = [group["lr"] for group in optimizer.param_groups]
            _log.info(
                f"Train: {epoch} [{number:>4d}]  Loss: {losses.val:#.3g} ({losses.avg:#.3g})"
                f"  Time: {update_time.val:.3f}s, {images.size(0) / update_time.val:>7.2f}/s ({update_time.avg:.3f}s)"
                f"  LR: {sum(rates) / len(rates):.3e}  Data: {data_time.val:.3f} ({data_time.avg:.3f})"
            )
        schedule.step_update(num_updates=number + 1, metric=losses.avg)  # type: ignore[attr-defined]
        asked_s = time.time()
