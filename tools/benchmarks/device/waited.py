"""A run whose epochs end when the device has done all that was asked of it: so the clock that reads then is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.loop import Run


def wait_for_the_device(run: Run) -> None:
    """From now on each epoch's loop over batches begins and ends with the device idle; nothing else changes."""
    device, training = run.ranks.device, run.time.training

    @contextmanager
    def waited(meter: Any) -> Iterator[None]:
        finish(device)
        with training(meter):
            yield
            finish(device)

    run.time.training = waited  # type: ignore[method-assign]


def finish(device: torch.device) -> None:
    """Return when the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
