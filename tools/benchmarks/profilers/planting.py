"""Putting a case's bottleneck into a script: where everybody can see it, in what takes the time."""

from collections.abc import Callable

import torch

from engine.step import TrainStep
from loaders.stage_times import Delay, StageTimes
from loaders.stage_writer import LOADER_STAGES, obey_delay

from .cases import Case


def plant_in_loader(case: Case, times: StageTimes) -> None:
    """Delay the loader's stage; one worker too few is one that waits for storage as two could at the same time."""
    stage = "read" if case.stage == "workers" else case.stage
    if case.side == "loading" and stage in LOADER_STAGES:
        times.delay(stage, _delay_of(case))


def plant_in_step(case: Case, step: TrainStep, num_images: int, rank: int) -> None:
    """Have the model's forward, a gradient's hook or the optimizer's step take so much longer a batch."""
    if case.side not in ("step", "rank") or (case.side == "rank" and rank != 1):
        return
    spend = spender(case, num_images)
    if case.stage == "forward":
        step.module.register_forward_pre_hook(lambda module, inputs: spend())
    elif case.stage == "backward":
        next(step.module.parameters()).register_hook(lambda gradient: _after(spend, gradient))
    else:
        step.optimizer.register_step_pre_hook(lambda optimizer, words, named: spend())


def spender(case: Case, num_images: int) -> Callable[[], None]:
    """Takes the case's time of so many images."""
    cell = _delay_of(case).cell
    return lambda: obey_delay(cell, num_images)


def _delay_of(case: Case) -> Delay:
    return Delay(case.kind, case.ms_per_image / 1e3)


def _after(spend: Callable[[], None], gradient: torch.Tensor) -> torch.Tensor:
    spend()
    return gradient
