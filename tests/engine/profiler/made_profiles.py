"""Profiles as measuring would leave them, made of a few numbers: nothing is run."""

from engine.profiler.record import (
    SCHEMA_VERSION,
    Ceilings,
    ProcessRecord,
    Profile,
    QueueRecord,
    RankRecord,
    Rate,
    ResourceRecord,
    StageRecord,
    Subject,
    Verdict,
)

SUBJECT = Subject(
    "data/set", "train", 1000, "turbo", "area", 2, 64, 224, "resnet50", "fp32", device="cuda", world_size=1
)
QUEUE = QueueRecord(4, (0, 1, 4), 5 / 3, 1 / 3, 1 / 3, 0.3, 2.0, 9.0, 0.5, 0.1)
RESOURCES = ResourceRecord(
    1.5, 2, 10**9, 10**6, 3.0, 10.0, None, 100.0, 0.9, 0.8, 10**9, 2 * 10**9, 3 * 10**9, 250.0,
    (ProcessRecord(7, "python", 1.5, 10**9, None, None, None, None),),
)  # fmt: skip
UNJUDGED = Verdict("inconclusive", None, None, None, 0.0, "", None, "")


def rate(value, spread=0.02, rounds=5):
    """Rounds spaced evenly around `value`."""
    half = spread / 2
    return Rate(tuple(value * (1 - half + spread * number / (rounds - 1)) for number in range(rounds)))


def ceilings(step, loader, loop, /, **changes):
    """All warm and on one rank, with 2 workers, unless `changes` say otherwise."""
    fields = {
        "step": rate(step), "fed": None, "loader": {2: rate(loader)}, "cold": None, "loop": rate(loop),
        "loop_cold": None, "cold_share": None, "no_sync": None, "data_wait_share": 0.3,
    }  # fmt: skip
    return Ceilings(**{**fields, **changes})


def rank(number=0, own_us=1000.0, stages=()):
    return RankRecord(number, "here", own_us, 0.3, tuple(stages), QUEUE, RESOURCES)


def profile(ceilings, *ranks, verdict=UNJUDGED):
    return Profile(SCHEMA_VERSION, SUBJECT, ceilings, ranks or (rank(),), verdict, (), (), {"seed": 0}, {})


def stage(name, where="worker", wall_us=100.0, **fields):
    return StageRecord(name, where, wall_us, **fields)
