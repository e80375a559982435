"""Which stage weighs most within a side, and what the loop would reach without a stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .bootstrap import CLOSE, SURE, chance_clearly_above
from .record import COMPUTE_STAGES, LOADER_STAGES, Profile, RankRecord, StageRecord
from .unseen_work import why_unnamed


@dataclass(frozen=True)
class Choice:
    """The stage that weighs most among some, the next one, and how sure that is, 0-1.

    stage       None where nothing is known of any, or where two weigh the same within the noise
    confidence  None where means alone are known, which do not tell
    """

    stage: str | None
    next_one: str
    confidence: float | None

    @property
    def likeliest(self) -> str:
        """The stage, or where none is named the one that would be, as far as any is known; else ""."""
        return self.stage or self.next_one

    def at_most(self, confidence: float) -> float:
        """`confidence`, or this choice's own where that is known and lower."""
        return confidence if self.confidence is None else min(confidence, self.confidence)


def loading_cost_us(stage: StageRecord, world_size: int) -> float | None:
    """Microseconds of the loader's time an image costs here, workers sharing it; None where it cannot be seen."""
    return 1e6 * world_size / stage.ceiling if stage.ceiling and stage.name in LOADER_STAGES else None


def loading_costs_us(profile: Profile) -> list[tuple[StageRecord, float]]:
    """The stages of the loader alone, each with its cost as above. Copying is none where it is a side of its own."""
    costs = [(stage, loading_cost_us(stage, profile.subject.world_size)) for stage in profile.shown_rank.stages]
    apart = ("copy",) if profile.ceilings.fed else ()
    return [(stage, cost) for stage, cost in costs if cost is not None and stage.name not in apart]


def computing_stages(rank: RankRecord) -> list[StageRecord]:
    """The step's stages that take time, and with them what is left of the loop, which comes after every step, where
    both sides were seen: else it holds them."""
    known = [stage for stage in rank.stages if stage.name in COMPUTE_STAGES and stage.wall_us is not None]
    rest, shared = rank.stage("other"), [stage for stage in known if stage.critical_share]
    sees_loading = any(stage.critical_share is not None for stage in rank.stages if stage.name in LOADER_STAGES)
    if rest is None or not rest.critical_share or not shared or not sees_loading:
        return known
    loop_us = sum(stage.wall_us or 0.0 for stage in shared) / sum(stage.critical_share or 0.0 for stage in shared)
    return [*known, replace(rest, wall_us=rest.critical_share * loop_us)]


def _who(stage: StageRecord) -> str:
    """Of the two who load at the same time, whose stage it is."""
    return "worker" if stage.where == "worker" else "loop"


def heaviest_of_loading(profile: Profile) -> Choice:
    """Workers go through their stages one after the other, and so does the loop's thread through its own; both at
    the same time. Of the slower group the stage that takes longest; none where most of the loader's work is unseen."""
    if why_unnamed(profile):
        return Choice(None, "", 0.0)
    groups: dict[str, list[tuple[StageRecord, float]]] = {}
    for stage, cost in loading_costs_us(profile):
        groups.setdefault(_who(stage), []).append((stage, cost))
    if not groups:
        return Choice(None, "", 0.0)
    slower = max(groups.values(), key=lambda group: sum(cost for _, cost in group))
    return _heaviest([stage for stage, _ in slower])


def heaviest_of_computing(rank: RankRecord) -> Choice:
    """Of the step's stages, and what is left of the loop, the one that takes longest."""
    return _heaviest(computing_stages(rank))


def heaviest_on_processors(rank: RankRecord) -> Choice:
    """Of all stages the one with the most processor time; none where of either side nothing is known."""
    known = [stage for stage in rank.stages if stage.cpu_us is not None]
    if not all(any(stage.name in side for stage in known) for side in (LOADER_STAGES, COMPUTE_STAGES)):
        return Choice(None, "", 0.0)
    return _heaviest([replace(stage, wall_us=stage.cpu_us, rounds_us=()) for stage in known])


def loading_without(profile: Profile, stage: str) -> float:
    """What the loader alone would reach, img/s, if a stage of it took no time."""
    alone = profile.ceilings.loader[profile.subject.workers].median
    sums = {"worker": 0.0, "loop": 0.0}
    without = dict(sums)
    for one, cost in loading_costs_us(profile):
        group = _who(one)
        sums[group] += cost
        without[group] += 0.0 if one.name == stage else cost
    now, then = max(sums.values()), max(without.values())
    return alone * now / then if then > 0 else float("inf")


def computing_without(profile: Profile, stage: str) -> float:
    """What the step alone would reach, img/s, if a stage of it took no time."""
    known = computing_stages(profile.shown_rank)
    total = sum(one.wall_us or 0.0 for one in known)
    left = sum(one.wall_us or 0.0 for one in known if one.name != stage)
    return profile.ceilings.step.median * total / left if left > 0 else float("inf")


def _heaviest(stages: Sequence[StageRecord]) -> Choice:
    ordered = sorted(stages, key=lambda stage: -(stage.wall_us or 0.0))
    if not ordered:
        return Choice(None, "", 0.0)
    if len(ordered) == 1:
        return Choice(ordered[0].name, "", 1.0)
    first, second = ordered[:2]
    if not first.rounds_us or not second.rounds_us:
        is_clear = (first.wall_us or 0.0) > (1 + CLOSE) * (second.wall_us or 0.0)
        return Choice(first.name if is_clear else None, second.name, None)
    confidence = chance_clearly_above(first.rounds_us, second.rounds_us)
    return Choice(first.name if confidence >= SURE else None, second.name, confidence)
