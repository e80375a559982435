"""Finds the step whose loss is no number, without asking the device at each."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from loaders.errors import FeedrateError

from ..dist import Ranks

_MOST_NAMED = 8
_REMEDY = "lower --optim.learning-rate, or clip gradients with --optim.clip-norm"


class LossWatch:
    """Notes on the device which step's loss was the first that is no number, and says it when asked.

    Asking makes the host wait for a GPU, so it is done where that waits anyway: with the logging, at the end of an
    epoch, and before a checkpoint is written, so that none ever holds what such a step left. On a CPU it costs
    nothing and is done at each step.
    """

    def __init__(
        self, device: torch.device, folder: Path | None = None, advice: Callable[[], str] = lambda: _REMEDY
    ) -> None:
        """`folder` takes a list of the batch's samples where it is too long for a sentence; `advice` ends it."""
        self._folder = folder
        self._advice = advice
        self._since: list[tuple[int, torch.Tensor]] = []  # step and ids of every batch since the last question
        self._last = (-1, torch.empty(0, dtype=torch.int64))
        self._first = torch.full((), -1, dtype=torch.int64, device=device)  # where in that list
        self._loss = torch.zeros((), dtype=torch.float32, device=device)

    def note(self, step: int, ids: torch.Tensor, loss: torch.Tensor) -> None:
        """Look at the float32 scalar `loss` of global step `step` on the int64 [B] samples `ids`; nothing waits."""
        is_first = ~loss.isfinite() & (self._first < 0)
        self._first = torch.where(is_first, len(self._since), self._first)
        self._loss = torch.where(is_first, loss, self._loss)
        self._last = (step, ids.clone())  # the loader may use its memory again
        self._since.append(self._last)

    def refuse_alarm(self, ranks: Ranks) -> None:
        """Raise FeedrateError, on every rank, if on any a loss was no number. Every rank must call it."""
        is_alarmed = int(self._first) >= 0
        if not ranks.largest([float(is_alarmed)])[0]:
            self._since.clear()
            return
        found = [entry for entry in ranks.gather(self._finding(ranks.rank)) if entry]
        step = min(step for step, _ in found)
        told = "; ".join(sentence for first, sentence in found if first == step)
        raise FeedrateError(f"at step {step} {told}: {self._advice()}")

    def refuse(self, model: nn.Module, ranks: Ranks) -> None:
        """The same, and also if a weight of `model` is no number, as one update can leave it."""
        self.refuse_alarm(ranks)
        if ranks.largest([float(not _is_finite(model))])[0]:
            step, ids = self._last
            samples = self._samples(ids, ranks.rank)
            what = f"weights of the model are no numbers any more, {samples}"
            raise FeedrateError(f"at step {step} {what}: {self._advice()}")

    def _finding(self, rank: int) -> tuple[int, str] | None:
        first = int(self._first)
        if first < 0:
            return None
        step, ids = self._since[first]
        return step, f"the loss is {float(self._loss)} on rank {rank}, {self._samples(ids, rank)}"

    def _samples(self, ids: torch.Tensor, rank: int) -> str:
        """The samples in words; of more than a few the first, and a file with all of them where it can be written."""
        listed = [str(number) for number in ids.tolist()]
        if len(listed) <= _MOST_NAMED:
            return f"of the samples {', '.join(listed)}"
        where = ""
        if self._folder is not None:
            path = self._folder / f"not-finite-rank{rank}.txt"
            with contextlib.suppress(OSError):
                path.write_text("\n".join(listed) + "\n")
                where = f" (all in {path})"
        return f"of {len(listed)} samples, the first {', '.join(listed[:_MOST_NAMED])}{where}"


def advice(precision: str, newest: Path | None) -> str:
    """What helps in `precision`, and which checkpoint, the newest, holds what stood before; None: there is none."""
    remedy = f"{_REMEDY}, or use --execution.precision bf16" if precision == "fp16" else _REMEDY
    return f"{remedy}; {'there is no checkpoint yet' if newest is None else f'{newest} is from before, and good'}"


def _is_finite(model: nn.Module) -> bool:
    """Whether all weights and buffers are numbers."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
