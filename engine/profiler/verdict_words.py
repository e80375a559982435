"""What the sentences of different verdicts have in common."""

from dataclasses import replace

from .bootstrap import SURE, chance_clearly_above
from .number_text import rate_text
from .record import Profile, Rate, Side, Verdict


def bound(name: str) -> str:
    """How a sentence begins that names a stage, or a side."""
    return f"{name[:1].upper()}{name[1:]}-bound"


def named(side: Side) -> str:
    """A side, within a sentence."""
    return {"data": "the loader", "copy": "feeding the device", "compute": "the step"}[side]


def ceiling_in_words(profile: Profile, side: Side, side_rate: Rate) -> str:
    """What a side reaches without the others."""
    workers, rate = profile.subject.workers, rate_text(side_rate.median)
    text = {
        "data": f"the loader alone gives {rate} img/s with {workers} worker{'s' * (workers > 1)}",
        "copy": f"fed from the host the step takes {rate} img/s",
        "compute": f"the step alone takes {rate} img/s",
    }
    return text[side]


def share_of_loop(profile: Profile, name: str) -> str:
    """What a stage is of the loop's time, unless others are more: where all share the processors, what the loop waits
    for may hide behind what it does meanwhile."""
    shares = {
        stage.name: stage.critical_share for stage in profile.shown_rank.stages if stage.critical_share is not None
    }
    is_most = name in shares and shares[name] == max(shares.values())
    return f", {name} is {shares[name]:.0%} of its time" if is_most else ""


_MENTIONED, _UNSURE = 0.05, 0.25  # shares of the processors


def used_by_others(profile: Profile) -> str:
    """What other programs used meanwhile; "" where that is next to nothing, or nobody looked."""
    others, cpus = profile.others_cpus, profile.shown_rank.resources.cpus_available
    if others is None or others < _MENTIONED * cpus:
        return ""
    return f"other programs used {others:.1f} of {cpus} processors meanwhile"


def unsure_beside_others(verdict: Verdict, profile: Profile) -> Verdict:
    """`verdict`, with less confidence and a word of it where others used much of the processors."""
    share = (profile.others_cpus or 0.0) / profile.shown_rank.resources.cpus_available
    if share < _UNSURE:
        return verdict
    sentence = (
        f"{verdict.sentence} Uncertain: {used_by_others(profile)}; measure again with nothing else on this machine."
    )
    return replace(verdict, confidence=verdict.confidence * max(0.0, 1 - share), sentence=sentence)


def first_epoch(profile: Profile) -> str:
    """Of a set that memory holds, what its first epoch is like, where that is slower."""
    ceilings = profile.ceilings
    if ceilings.loop_cold is None or chance_clearly_above(ceilings.loop.rounds, ceilings.loop_cold.rounds) < SURE:
        return ""
    return f" While files are not in memory, in the first epoch, it is {rate_text(ceilings.loop_cold.median)}."
