"""Whether one rank keeps all others waiting, and by what."""

import statistics
from dataclasses import dataclass

from .bootstrap import SURE, chance_clearly_above
from .record import CLOCKED_STAGES, LOADER_STAGES, Profile, RankRecord
from .stage_costs import loading_cost_us

SLOWER = 0.15  # a rank's own time must be above the others' by this share, beside the noise, to be called slow


@dataclass(frozen=True)
class SlowRank:
    """stage  in which the rank loses most against the others; None where its loader shows none
    excess_us  what it loses there, an image;  margin  its own time / the others';  others_us  their own time
    """

    rank: int
    stage: str | None
    next_one: str
    excess_us: float
    margin: float
    others_us: float
    confidence: float


def find_slow_rank(profile: Profile) -> SlowRank | None:
    """The rank that takes longer than the others by itself: waiting for data and computing, nothing exchanged.

    None where ranks are surely alike; where its `confidence` is below SURE, it may be slow or not.
    """
    if len(profile.ranks) < 2:
        return None
    slow = max(profile.ranks, key=lambda rank: rank.own_us)
    others = [rank for rank in profile.ranks if rank is not slow]
    others_us = statistics.median(rank.own_us for rank in others)
    rounds = [rank.own_rounds_us or (rank.own_us,) for rank in others]
    of_others = [statistics.median(values) for values in zip(*rounds, strict=True)]
    confidence = chance_clearly_above(slow.own_rounds_us or (slow.own_us,), of_others, SLOWER)
    if confidence <= 1 - SURE:
        return None
    excess = _excess(slow, others, profile.subject.world_size)
    ordered = sorted(excess, key=lambda name: -excess[name])
    stage = ordered[0] if ordered and excess[ordered[0]] > 0 else ""
    return SlowRank(
        slow.rank,
        None if stage in ("", "data") else stage,
        next((name for name in ordered[1:] if name != "data"), ""),
        excess.get(stage, slow.own_us - others_us),
        slow.own_us / others_us,
        others_us,
        confidence,
    )


def _excess(slow: RankRecord, others: list[RankRecord], world_size: int) -> dict[str, float]:
    """Microseconds an image that the rank takes longer than the others, by stage.

    What it waits longer for data stands under the loader's stage that is slower most, or under "data".
    """
    excess = {}
    for name in CLOCKED_STAGES:
        walls = [_wall_us(rank, name) for rank in (slow, *others)]
        if walls[0] is not None:
            excess[name] = walls[0] - statistics.median(wall or 0.0 for wall in walls[1:])
    waits = [rank.data_wait_share * rank.own_us for rank in (slow, *others)]
    slower = {}
    for name in LOADER_STAGES:
        costs = [_cost_us(rank, name, world_size) for rank in (slow, *others)]
        if costs[0] is not None:
            slower[name] = costs[0] - statistics.median(cost or 0.0 for cost in costs[1:])
    excess[max(slower, key=lambda name: slower[name]) if slower else "data"] = waits[0] - statistics.median(waits[1:])
    return excess


def _wall_us(rank: RankRecord, name: str) -> float | None:
    stage = rank.stage(name)
    return None if stage is None else stage.wall_us


def _cost_us(rank: RankRecord, name: str, world_size: int) -> float | None:
    stage = rank.stage(name)
    return None if stage is None else loading_cost_us(stage, world_size)
