"""From watched turns of the loop to one rank's record: its stages, its queue, its resources."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch

from loaders.cpus import available_cpus
from loaders.stage_times import StageReading

from .loop_watch import WatchedTurn
from .record import (
    CLOCKED_STAGES,
    COMPUTE_STAGES,
    LOADER_STAGES,
    ROWS,
    ProcessRecord,
    QueueRecord,
    RankRecord,
    ResourceRecord,
    StageRecord,
    Where,
)
from .unseen_work import unseen, unseen_stage

IN_WORKERS = frozenset({"read", "decode", "augment"})  # of most loaders
_MOST_READY = 2000  # asks that a record keeps
_OTHER_PIXELS = "rectangles are copied and resized there: of how many bytes cannot be seen"


@dataclass(frozen=True)
class Setting:
    """What the watched turns ran under, on this rank.

    images       of a batch on this rank
    in_workers   the stages that the loader's workers do; without "collate" they do not assemble its batches, without
                 "augment" the loop's thread or the device cuts and resizes
    """

    rank: int
    world_size: int
    device: torch.device
    workers: int
    depth: int
    images: int
    in_workers: frozenset[str] = IN_WORKERS


def stages_in_workers(loader: object) -> frozenset[str]:
    """Of a loader, which may be somebody's own and not tell."""
    cuts, collates = getattr(loader, "augments_in_workers", True), getattr(loader, "collates_in_workers", False)
    return (IN_WORKERS if cuts else IN_WORKERS - {"augment"}) | ({"collate"} if collates else frozenset())


def rank_record(
    setting: Setting,
    loop: Sequence[WatchedTurn],
    alone: Sequence[WatchedTurn],
    cold: Sequence[WatchedTurn],
) -> RankRecord:
    """One rank's account of the warm loop.

    alone  turns without gradients being exchanged; none where there is one rank
    cold   turns of the cold loop, where there are
    """
    own = alone or loop
    loop_us, own_us = _us_per_image(loop), _us_per_image(own)
    stages = _stages(setting, own, min(1.0, own_us / loop_us))
    return RankRecord(
        setting.rank,
        platform.node(),
        own_us,
        float(np.median([turn.wait_share for turn in own])),
        tuple(_with_sync(stages, own_us, loop_us, setting.world_size)),
        _queue(setting, own, stages),
        _resources(setting, loop, cold, stages),
        tuple(_us_per_image([turn]) for turn in own),
        _seen_us(own),
    )


def _seen_us(turns: Sequence[WatchedTurn]) -> float | None:
    """What an image takes the loader's stages; each has its own number of images, since it may be batches ahead."""
    if any(turn.seen_s is None for turn in turns):
        return None
    sums: dict[str, list[float]] = {}
    for turn in turns:
        for name, taken_s in (turn.seen_s or {}).items():
            taken = sums.setdefault(name, [0.0, 0.0])
            taken[0] += taken_s
            taken[1] += turn.loader[name].count if name in turn.loader else 0
    return sum(1e6 * taken_s / count for taken_s, count in sums.values() if count)


def _us_per_image(turns: Sequence[WatchedTurn]) -> float:
    return 1e6 * sum(turn.seconds for turn in turns) / sum(turn.num_images for turn in turns)


def _stages(setting: Setting, turns: Sequence[WatchedTurn], of_loop: float) -> list[StageRecord]:
    """All stages but sync. `of_loop`: these turns' time an image / the loop's, by which shares are multiplied."""
    seconds = sum(turn.seconds for turn in turns)
    computed = [_compute_stage(setting, name, turns, of_loop) for name in CLOCKED_STAGES]
    busy = sum(stage.critical_share or 0.0 for stage in computed)
    wait = sum(sum(turn.waits_s) for turn in turns) / seconds * of_loop
    # where the host runs ahead of a GPU it waits for data while that computes: what is left is what data cost
    wait = max(0.0, min(wait, of_loop - busy))
    loaded = [_loader_stage(setting, name, turns) for name in LOADER_STAGES]
    costs = {stage.name: 1 / stage.ceiling for stage in loaded if stage.ceiling}
    total = sum(costs.values())
    seen = [sum(turn.seen_s.values()) for turn in turns if turn.seen_s is not None]
    # an epoch's first batch takes starting, too; a turn's first epoch began before its clock
    starting = sum(sum(turn.first_batches_s[1:]) for turn in turns) / seconds * of_loop
    lost = unseen(wait, sum(seen) / seconds * of_loop, starting) if total and seen else 0.0
    loaded = [
        replace(stage, critical_share=(wait - lost) * costs[stage.name] / total) if stage.name in costs else stage
        for stage in loaded
    ]
    left = max(0.0, of_loop - busy - (wait if total else 0.0))
    note = "" if total or not wait else "with waiting for a loader that shows no stages"
    other = StageRecord("other", "loop", critical_share=left, note=note or "the rest of the loop")
    if lost:  # what of the processor time is the loader's cannot be told then
        loaded.append(unseen_stage(lost, loaded))
    elif setting.device.type == "cpu" and total:
        computed = _with_cpu(computed, loaded, turns)
    return [*loaded, *computed, other]


def _with_cpu(
    computed: list[StageRecord], loaded: list[StageRecord], turns: Sequence[WatchedTurn]
) -> list[StageRecord]:
    """The processor time that loading left, shared out by wall time: threads of torch cannot be asked for theirs."""
    cpu_us = 1e6 * sum(turn.used.cpu_s for turn in turns) / sum(turn.num_images for turn in turns)
    cpu_us = max(0.0, cpu_us - sum(stage.cpu_us or 0.0 for stage in loaded))
    wall_us = sum(stage.wall_us or 0.0 for stage in computed)
    return [
        replace(stage, cpu_us=cpu_us * stage.wall_us / wall_us, note="processor time shared out by wall time")
        if stage.wall_us is not None and wall_us > 0
        else stage
        for stage in computed
    ]


def _with_sync(stages: list[StageRecord], own_us: float, loop_us: float, world_size: int) -> list[StageRecord]:
    """`stages` with the exchange of gradients: what the loop takes longer with it than without."""
    sync_us = loop_us - own_us
    if world_size == 1:
        sync = StageRecord("sync", "device", note="one rank exchanges nothing")
    elif sync_us <= 0:
        sync = StageRecord("sync", "device", note="too small to be told from noise")
    else:
        note = "with waiting for slower ranks; a difference of two runs has no quantiles"
        sync = StageRecord(
            "sync", "device", sync_us, ceiling=1e6 * world_size / sync_us, critical_share=sync_us / loop_us, note=note
        )
    return sorted([*stages, sync], key=lambda stage: ROWS.index(stage.name))


def _loader_stage(setting: Setting, name: str, turns: Sequence[WatchedTurn]) -> StageRecord:
    in_workers = name in setting.in_workers
    where: Where = "worker" if in_workers else "loop"
    if name in ("copy", "augment") and not in_workers and setting.device.type == "cuda":
        where = "device"
    readings = [turn.loader[name] for turn in turns if name in turn.loader and turn.loader[name].count]
    if not readings:
        return StageRecord(name, where, note="this loader has no such stage, or does not show it")
    whole = reduce(_sum, readings)
    wall_us = 1e6 * whole.wall_s / whole.count
    at_once = setting.workers if in_workers else 1
    p50_s, p90_s, p99_s = (whole.quantile_s(q) for q in (0.5, 0.9, 0.99))
    return StageRecord(
        name,
        where,
        wall_us,
        _us(None if whole.cpu_s is None else whole.cpu_s / whole.count),
        _us(p50_s),
        _us(p90_s),
        _us(p99_s),
        ceiling=1e6 * at_once * setting.world_size / wall_us if wall_us > 0 else None,
        note=_OTHER_PIXELS if name == "copy" and _copied_mb_per_s(turns) is None else "",
        rounds_us=tuple(1e6 * reading.wall_s / reading.count for reading in readings),
    )


def _sum(one: StageReading, other: StageReading) -> StageReading:
    return StageReading(
        one.count + other.count,
        one.wall_s + other.wall_s,
        one.sampled_count + other.sampled_count,
        one.sampled_cpu_s + other.sampled_cpu_s,
        tuple(a + b for a, b in zip(one.histogram, other.histogram, strict=True)),
    )


def _compute_stage(setting: Setting, name: str, turns: Sequence[WatchedTurn], of_loop: float) -> StageRecord:
    where: Where = "loop" if setting.device.type == "cpu" else "device"
    spans = [turn.step[name] for turn in turns if name in turn.step and turn.step[name].count]
    if not spans:
        return StageRecord(name, where, note="not told apart on this device")
    total_s, num_images = sum(span.wall_s for span in spans), sum(turn.num_images for turn in turns)
    wall_us = 1e6 * total_s / num_images
    # of a span: where several batches make an update, clip and optimizer have one for all of them
    images = num_images / sum(span.count for span in spans)
    p50_us, p90_us, p99_us = (1e6 * quantile_s / images for quantile_s in spans[-1].quantiles_s)
    return StageRecord(
        name,
        where,
        wall_us,
        None,
        p50_us,
        p90_us,
        p99_us,
        ceiling=1e6 * setting.world_size / wall_us if wall_us > 0 else None,
        critical_share=total_s / sum(turn.seconds for turn in turns) * of_loop,
        rounds_us=tuple(
            1e6 * turn.step[name].wall_s / turn.num_images for turn in turns if name in turn.step and turn.num_images
        ),
    )


def _queue(setting: Setting, turns: Sequence[WatchedTurn], stages: list[StageRecord]) -> QueueRecord:
    ready = [count for turn in turns for count in turn.ready if count is not None]
    depth = max([setting.depth, *ready])  # a loader may be further ahead, to keep each of its workers busy
    waits_ms = 1e3 * np.array([wait for turn in turns for wait in turn.waits_s])
    firsts_s = [seconds for turn in turns for seconds in turn.first_batches_s]
    first = float(np.median(firsts_s)) if firsts_s else None
    # where workers assemble batches, one alone makes all of the first
    at_once = 1 if "collate" in setting.in_workers else setting.workers
    worked_us = _worked_us(stages)
    made_s = None if worked_us is None else worked_us * setting.images / at_once / 1e6
    seconds = sum(turn.seconds for turn in turns)
    return QueueRecord(
        depth,
        tuple(ready[:_MOST_READY]) if ready else None,
        float(np.mean(ready)) if ready else None,
        float(np.mean([count == 0 for count in ready])) if ready else None,
        float(np.mean([count >= depth for count in ready])) if ready else None,
        sum(turn.lost_s for turn in turns) / seconds,
        float(np.quantile(waits_ms, 0.5)),
        float(np.quantile(waits_ms, 0.99)),
        first,
        None if first is None or made_s is None else max(0.0, first - made_s),
        "" if ready else "this loader does not tell how many batches are ready",
        None if worked_us is None else max(0.0, 1 - worked_us / (_us_per_image(turns) * setting.workers)),
    )


def _worked_us(stages: Sequence[StageRecord]) -> float | None:
    """What an image takes a worker; None where the making of pixels is not seen, as inside DALI."""
    walls = {stage.name: stage.wall_us for stage in stages if stage.where == "worker" and stage.wall_us is not None}
    return sum(walls.values()) if walls.keys() & {"decode", "augment"} else None


def _resources(
    setting: Setting, loop: Sequence[WatchedTurn], cold: Sequence[WatchedTurn], stages: list[StageRecord]
) -> ResourceRecord:
    last, seconds = loop[-1].used, sum(turn.used.seconds for turn in loop)
    on_gpu = setting.device.type == "cuda"
    shares = [stage.critical_share for stage in stages if stage.name in COMPUTE_STAGES]
    gpu = [turn.used.gpu_share for turn in loop if turn.used.gpu_share is not None]
    power = [turn.used.gpu_power_w for turn in loop if turn.used.gpu_power_w is not None]
    peaks = [turn.peak_bytes for turn in loop if turn.peak_bytes is not None]
    # this one first, which is no worker's, and then as they were: those with the most processor time
    processes: list[ProcessRecord] = sorted(last.processes, key=lambda process: process.pid != os.getpid())
    return ResourceRecord(
        sum(turn.used.cpu_s for turn in loop) / seconds,
        available_cpus(),
        last.memory_bytes,
        last.shared_bytes,
        _mb_per_s(loop),
        sum(turn.used.reads or 0 for turn in loop) / seconds if last.reads is not None else None,
        _mb_per_s(cold) if cold else None,
        _copied_mb_per_s(loop),
        float(np.mean(gpu)) if gpu else None,
        sum(share for share in shares if share is not None) if on_gpu and any(shares) else None,
        torch.cuda.memory_allocated(setting.device) if on_gpu else None,
        torch.cuda.memory_reserved(setting.device) if on_gpu else None,
        max(peaks, default=None),
        float(np.mean(power)) if power else None,
        tuple(processes),
    )


def _copied_mb_per_s(turns: Sequence[WatchedTurn]) -> float | None:
    known = [turn for turn in turns if turn.copied_bytes is not None]
    return sum(turn.copied_bytes or 0 for turn in known) / 1e6 / sum(turn.seconds for turn in known) if known else None


def _mb_per_s(turns: Sequence[WatchedTurn]) -> float | None:
    known = [(turn.used.read_bytes, turn.used.seconds) for turn in turns if turn.used.read_bytes is not None]
    return sum(read for read, _ in known) / 1e6 / sum(seconds for _, seconds in known) if known else None


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds
