"""Delays put into stages of a training step on purpose, to see whether the profiler finds them.

The loader's stages take theirs from `StageTimes.delay`. The step has its clock replaced by one that spends them:

    step.clock = delayed_clock(step.clock, {"forward": Delay("sleep", 0.001)}, images_per_step, device)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from loaders.errors import FeedrateError, did_you_mean
from loaders.stage_writer import Delay, obey_delay
from loaders.stream_spans import cycles_for, cycles_per_s

from .record import CLOCKED_STAGES
from .step_clock import StageSpan, StepClock

# takes the time of a delay, for so many images
Spend = Callable[[Delay, int], None]


class DelayedClock:
    """A clock of steps whose spans take longer: each by the delay of its stage, after the work that it times.

    delays  seconds an image, by stage; changeable while the clock is used: see `delay`
    """

    def __init__(self, clock: StepClock, delays: Mapping[str, Delay], images_per_step: int, spend: Spend) -> None:
        if images_per_step < 1:
            raise FeedrateError(f"delays in steps of {images_per_step} images: at least 1 is needed")
        self._clock = clock
        self._images_per_step = images_per_step
        self._spend = spend
        self._delays: dict[str, Delay] = {}
        for stage, delay in delays.items():
            self.delay(stage, delay)

    def delay(self, stage: str, delay: Delay | None) -> None:
        """From the next step on, take so much longer in a stage; None: no longer."""
        if stage not in CLOCKED_STAGES:
            hint = did_you_mean(stage, CLOCKED_STAGES)
            raise FeedrateError(f"a step has no span '{stage}': {hint}known are {', '.join(CLOCKED_STAGES)}")
        if delay is None:
            self._delays.pop(stage, None)
        else:
            self._delays[stage] = delay

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time what the step does within the block, and its delay."""
        with self._clock.span(stage):
            yield
            delay = self._delays.get(stage)
            if delay is not None:
                self._spend(delay, self._images_per_step)

    def read(self) -> dict[str, StageSpan]:
        """Of every stage seen so far."""
        return self._clock.read()

    def total_s(self) -> float:
        """Wall time of all stages so far."""
        return self._clock.total_s()


def delayed_clock(
    clock: StepClock, delays: Mapping[str, Delay], images_per_step: int, device: torch.device
) -> DelayedClock:
    """`clock` with delays spent where this device's time goes: on a GPU by kernels that do nothing, else by the thread
    that computes. A GPU knows no difference between sleeping and working: it is busy with either."""
    return DelayedClock(clock, delays, images_per_step, _on_gpu(device) if device.type == "cuda" else _on_the_host)


def _on_the_host(delay: Delay, images: int) -> None:
    obey_delay(delay.cell, images)


def _on_gpu(device: torch.device) -> Spend:
    rate = cycles_per_s(device)

    def spend(delay: Delay, images: int) -> None:
        with torch.cuda.device(device):
            torch.cuda._sleep(cycles_for(delay.seconds * images, rate))  # type: ignore[no-untyped-call]

    return spend
