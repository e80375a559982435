"""The training loop of torchvision's references/classification/train.py, as its documentation and options have it.

That script is in no package; this does the same operations in the same order, written anew: cross-entropy with label
smoothing, SGD, autocast around forward and loss, top-1 and top-5 and the loss read by the host in every step, smoothed
meters, a line every ten steps; float16, which is what its --amp means, with GradScaler. Apart from it: bfloat16 needs
no scaler, and the layout is set where all sides have it.
"""

import itertools
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import (
    Compose,
    ConvertImageDtype,
    Normalize,
    PILToTensor,
    RandomHorizontalFlip,
    RandomResizedCrop,
)

from .job import Job
from .sides import LEARNING_RATE, MOMENTUM, SMOOTHING, WEIGHT_DECAY
from .window import Window, WindowOver

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PRINT_EVERY = 10
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

TensorPair = tuple[torch.Tensor, torch.Tensor]


def train(job: Job, window: Window, feed: str) -> nn.Module:
    """Train until the window is over. Returns the model."""
    torch.set_num_threads(job.num_threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(job.device)
    num_classes = len([path for path in Path(job.images).iterdir() if path.is_dir()])
    model = laid_out(get_model(job.model, weights=None, num_classes=num_classes).to(device), job)
    criterion = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    scaler = torch.amp.GradScaler(job.device, enabled=job.precision == "fp16")
    batches = itertools.repeat(resident(job, num_classes)) if feed == "resident" else _loader(job)
    try:
        while True:
            timed = window.over(batches, lambda pair: len(pair[1]))
            _train_one_epoch(model, criterion, optimizer, scaler, timed, job)
    except WindowOver:
        return model


def laid_out(model: nn.Module, job: Job) -> nn.Module:
    """The model in the layout of the job."""
    return model.to(memory_format=torch.channels_last) if job.channels_last else model  # type: ignore[call-overload]


def resident(job: Job, num_classes: int) -> TensorPair:
    """float32 [B, 3, S, S] of mean 0 and deviation 1 and int64 [B] labels, on the device and in the layout of the job:
    nothing is left to do but the step."""
    device = torch.device(job.device)
    layout = torch.channels_last if job.channels_last else torch.contiguous_format
    images = torch.randn(job.batch_size, 3, job.size_px, job.size_px, device=device).contiguous(memory_format=layout)
    return images, torch.randint(num_classes, (job.batch_size,), device=device)


def _loader(job: Job) -> DataLoader[Any]:
    transform = Compose(
        [
            RandomResizedCrop(job.size_px),
            RandomHorizontalFlip(0.5),
            PILToTensor(),
            ConvertImageDtype(torch.float),
            Normalize(_MEAN, _STD),
        ]
    )
    return DataLoader(
        ImageFolder(job.images, transform),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.num_workers,
        pin_memory=job.device == "cuda",  # on a CPU it would only warn
        persistent_workers=True,  # the script starts them anew each epoch: this favours it
    )


def _train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[TensorPair],
    job: Job,
) -> None:
    model.train()
    device, meters = torch.device(job.device), _Meters()
    for images, labels in meters.printed(batches):
        started_s = time.time()
        images, labels = images.to(device), labels.to(device)
        if job.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, AUTOCAST[job.precision], enabled=job.precision != "fp32"):
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        top1, top5 = _accuracies(output, labels)
        meters.update("loss", loss.item())
        meters.update("lr", optimizer.param_groups[0]["lr"])
        meters.update("acc1", top1.item())
        meters.update("acc5", top5.item())
        meters.update("img/s", len(images) / (time.time() - started_s))


def _accuracies(output: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """Percent right among the first one and the first five, or as many classes as there are."""
    with torch.inference_mode():
        most = min(5, output.shape[1])
        right = output.topk(most, 1, True, True)[1].t().eq(labels[None])
        return [right[:k].flatten().sum(dtype=torch.float32) * (100.0 / len(labels)) for k in (1, most)]


class _Meters:
    """The last twenty values of each figure, and a line with their medians now and then."""

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=20))

    def update(self, name: str, value: float) -> None:
        self._values[name].append(value)

    def printed(self, batches: Iterable[TensorPair]) -> Iterator[TensorPair]:
        ended_s = time.time()
        for number, batch in enumerate(batches):
            self.update("data", time.time() - ended_s)
            yield batch
            self.update("time", time.time() - ended_s)
            if number % _PRINT_EVERY == 0:
                shown = (f"{name}: {torch.tensor(list(last)).median():.4f}" for name, last in self._values.items())
                print(f"[{number}]  {'  '.join(shown)}")
            ended_s = time.time()
