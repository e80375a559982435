"""The largest batch whose training step fits into memory, found by trying."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

from loaders.errors import FeedrateError

from ..augment import IMAGENET_CHANNELS
from ..build import build_step
from ..compiled import forget_compiled
from ..config import Config
from ..data import opened_split
from ..data_path import path_to_read
from ..dist import Ranks
from ..model import image_sizes
from ..optimisation.average import Averages
from ..safeguards.memory import gigabytes, is_out_of_memory, release_memory

Tell = Callable[[str], None]
Measure = Callable[[int], int | None]

_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Found:
    """`num_images` a rank of `size_px`, whose step took `peak_bytes` at most; 0 images where not even the least fit."""

    num_images: int
    size_px: int
    peak_bytes: int


def find_batch_size(config: Config, ranks: Ranks, limit_bytes: int | None, multiple: int, tell: Tell) -> Found:
    """Try whole steps of `config` on one rank, at its largest size of images, with multiples of `multiple` images.

    On a GPU a batch does not fit where its memory does not suffice; on a CPU, and on a GPU where a limit is given,
    where the most it took is above `limit_bytes`: there, each trial is a process of its own, whose resident memory is
    read. What a loader holds ready comes on top. `tell` hears of each trial, and first which of two sets is read.
    """
    path = path_to_read(config.data, tell)
    with closing(opened_split(path, config.data.train_split, config, ranks, tell)) as records:
        most, num_classes = len(records), len(records.classes)
    if most < multiple:
        raise FeedrateError(
            f"'{config.data.train_split}' has {most} images, fewer than --multiple {multiple}: give {most} or less"
        )
    size_px = max(image_sizes(config).training_px)
    if ranks.device.type == "cuda":
        measure = _measure_on_device(config, ranks, num_classes, size_px, limit_bytes)
    elif limit_bytes is None:
        raise FeedrateError("on a CPU nothing says when memory is used up: --memory-bytes must say how much there is")
    else:
        measure = _measure_in_processes(config, num_classes, size_px, limit_bytes)
    peaks = {0: 0}

    def fits(num_images: int) -> bool:
        peak = measure(num_images)
        tell(f"{num_images} images of {size_px} px: " + ("do not fit" if peak is None else gigabytes(peak)))
        if peak is not None:
            peaks[num_images] = peak
        return peak is not None

    num_images = largest_fitting(fits, multiple, most)
    return Found(num_images, size_px, peaks[num_images])


def largest_fitting(fits: Callable[[int], bool], multiple: int, most: int) -> int:
    """The largest multiple of `multiple`, at most `most`, that fits: by doubling, then halving the gap. 0 if none."""
    good, bad = 0, most // multiple + 1  # in multiples; what is beyond `most` counts as too much
    while good + 1 < bad:
        middle = min(max(1, 2 * good), bad - 1) if bad > most // multiple else (good + bad) // 2
        if fits(middle * multiple):
            good = middle
        else:
            bad = middle
    return good * multiple


def _measure_on_device(
    config: Config, ranks: Ranks, num_classes: int, size_px: int, limit_bytes: int | None
) -> Measure:
    step = build_step(config, ranks, num_classes, IMAGENET_CHANNELS, steps_per_epoch=1)
    averages = Averages(step.module, config.average, step.windows)

    def measure(num_images: int) -> int | None:
        if config.execution.compile:
            forget_compiled()  # after some sizes torch would go on uncompiled, and take other memory than the run
        release_memory(ranks.device)
        torch.cuda.reset_peak_memory_stats(ranks.device)
        if not (step.fits(num_images, size_px) and step.fits(num_images, size_px)):
            return None
        averages.after_step(0)
        peak = torch.cuda.max_memory_reserved(ranks.device)
        return None if limit_bytes is not None and peak > limit_bytes else peak

    return measure


def _measure_in_processes(config: Config, num_classes: int, size_px: int, limit_bytes: int) -> Measure:
    context = multiprocessing.get_context("spawn")  # a fork would count the memory of this process as its own

    def measure(num_images: int) -> int | None:
        receiving, sending = context.Pipe(duplex=False)
        work = (config, num_classes, num_images, size_px, sending)
        trial = context.Process(target=_try_in_process, args=work, daemon=True)
        trial.start()
        sending.close()
        try:
            peak = _watched(trial, receiving, limit_bytes)
        finally:
            trial.kill()  # it has said what it had to, or took too much
            trial.join()
            receiving.close()
        return peak

    return measure


def _watched(trial: BaseProcess, receiving: Connection, limit_bytes: int) -> int | None:
    """What the process reports; None as soon as it takes more than it may, or where the system ended it for that."""
    process = psutil.Process(trial.pid)
    while not receiving.poll(_LOOK_EVERY_S):
        try:
            if process.memory_info().rss > limit_bytes:
                return None
        except psutil.Error:
            break  # it has ended
    try:
        peak = receiving.recv()
    except EOFError:
        _check_killed(trial)
        return None
    if isinstance(peak, str):
        raise FeedrateError(peak)
    return None if peak is None or peak > limit_bytes else int(peak)


def _check_killed(trial: BaseProcess) -> None:
    """Raise FeedrateError unless it ended as the system ends what uses up the memory."""
    trial.join()
    if trial.exitcode == -signal.SIGKILL:
        return
    ended = f"exit status {trial.exitcode}"
    if trial.exitcode is not None and trial.exitcode < 0:
        ended = signal.Signals(-trial.exitcode).name
    raise FeedrateError(f"a trial ended with {ended}, which is not for lack of memory: see what it printed")


def _try_in_process(config: Config, num_classes: int, num_images: int, size_px: int, sending: Connection) -> None:
    """Two steps, the second with the optimizer's state there; sends the most memory this process ever had."""
    try:
        cpu = torch.device("cpu")
        alone = Ranks(rank=0, world_size=1, local_rank=0, local_world_size=1, device=cpu)
        torch.set_num_threads(config.execution.threads or alone.cpus)
        step = build_step(config, alone, num_classes, IMAGENET_CHANNELS, steps_per_epoch=1)
        averages = Averages(step.module, config.average, step.windows)
        fit = step.fits(num_images, size_px) and step.fits(num_images, size_px)
        averages.after_step(0)
        sending.send(_peak_resident_bytes() if fit else None)
    except FeedrateError as error:
        sending.send(str(error))
    except Exception as error:
        if is_out_of_memory(error):
            sending.send(None)
            return
        traceback.print_exc()
        sending.send(
            f"a step with {num_images} images of {size_px} px fails, and not for lack of memory"
            f" ({type(error).__name__}: {error}): see where above"
        )


def _peak_resident_bytes() -> int:
    """Of this process alone: what getrusage says would begin with the memory of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise FeedrateError("/proc/self/status does not tell the memory of a process: the batch size is found on Linux")
