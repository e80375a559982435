"""How much a stage may take longer before it limits the loop: what the verdict is judged by, and does not use.

Three kinds of hands work at the same time: the loader's workers, the loop's own thread, and a device. Each goes through
its stages one after the other, so the loop takes as long as the busiest of them, and the stage that holds it back is
the longest of that one's.
"""

from collections.abc import Mapping

from ..record import CLOCKED_STAGES, LOADER_STAGES, RankRecord, StageRecord, Where
from ..slow_rank import SLOWER

# microseconds an image takes each of those who work at once, stage by stage; workers share theirs
Costs = Mapping[Where, Mapping[str, float]]


def costs_of(rank: RankRecord, world_size: int) -> dict[Where, dict[str, float]]:
    """Of every stage that was seen, but for waiting for other ranks."""
    costs: dict[Where, dict[str, float]] = {}
    for stage in rank.stages:
        if stage.wall_us is not None and stage.name in (*LOADER_STAGES, *CLOCKED_STAGES):
            # a GPU copies by an engine of its own, beside what it computes; the loop's thread waits for it
            where = "loop" if stage.name == "copy" else stage.where
            costs.setdefault(where, {})[stage.name] = stage.wall_us / hands(stage, world_size)
    return costs


def hands(stage: StageRecord, world_size: int) -> float:
    """How many images of a rank were in this stage at once."""
    if stage.where != "worker" or not stage.ceiling or not stage.wall_us:
        return 1.0
    return stage.ceiling * stage.wall_us / 1e6 / world_size


def loop_us(costs: Costs) -> float:
    """What an image takes the loop."""
    return max((sum(stages.values()) for stages in costs.values()), default=0.0)


def longer(costs: Costs, stage: str, by_us: float) -> Costs:
    """`costs`, with a stage that takes so much longer."""
    return {
        where: {name: cost + by_us * (name == stage) for name, cost in stages.items()}
        for where, stages in costs.items()
    }


def slack_us(rank: RankRecord, stage: str, world_size: int) -> float | None:
    """The delay an image from which on `stage` is what limits: its side is then the busiest, and it the longest of it.

    None where the stage was not seen.
    """
    costs, record = costs_of(rank, world_size), rank.stage(stage)
    if record is None or record.wall_us is None:
        return None
    own = costs[record.where]
    others = max((sum(stages.values()) for where, stages in costs.items() if where != record.where), default=0.0)
    until_busiest = others - sum(own.values())
    until_longest = max((cost for name, cost in own.items() if name != stage), default=0.0) - own[stage]
    return hands(record, world_size) * max(until_busiest, until_longest, 0.0)


def slow_rank_slack_us(ranks: tuple[RankRecord, ...]) -> float:
    """The delay an image from which on one rank is to be called slow."""
    return SLOWER * max(rank.own_us for rank in ranks)
