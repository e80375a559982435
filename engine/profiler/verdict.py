"""From a profile's numbers to one stage and one sentence: what does this run wait for? Nothing is measured here."""

from dataclasses import dataclass

from .advice import advise, gain_of_share, rate_without, run_of
from .bootstrap import CLOSE, SURE, chance_above, chance_clearly_above
from .explanation import BUSY, explained, own_use
from .number_text import bytes_text, rate_text
from .record import INCONCLUSIVE, LOADER_STAGES, UNSEEN, Advice, Profile, Rate, Side, Verdict
from .remedies import remedies
from .slow_rank import SlowRank, find_slow_rank
from .stage_costs import (
    Choice,
    computing_stages,
    heaviest_of_computing,
    heaviest_of_loading,
    heaviest_on_processors,
)
from .unseen_work import why_unnamed
from .verdict_words import bound, ceiling_in_words, first_epoch, named, share_of_loop, unsure_beside_others

_LOSS = 0.15  # a share the loop may fall below what is expected of it before something else holds it up


@dataclass(frozen=True)
class _Ceiling:
    """What a side reaches without the others: the lowest limits."""

    side: Side
    rate: Rate


def judge(profile: Profile) -> Verdict:
    """Name the one stage that holds the loop back, or none where numbers lie too close together for a name.

    Where the set does not fit into memory the cold loop counts, which is what training then does; else the warm one.
    """
    return unsure_beside_others(_undisturbed(profile), profile)


def _undisturbed(profile: Profile) -> Verdict:
    """As if nobody else had used the processors."""
    slow = find_slow_rank(profile)
    if slow is not None:
        return _of_slow_rank(profile, slow) if slow.confidence >= SURE else _of_doubtful_rank(profile, slow)
    if (waits := _chance_of_storage(profile)) >= SURE:
        return _of_storage(profile, waits)
    ceilings = _ceilings(profile)
    first, second = sorted(ceilings, key=lambda one: one.rate.median)
    loop, expected = _without_waiting(profile), explained(profile, ceilings[1].rate)
    unexplained = chance_clearly_above(expected.rounds, loop.rounds, 1 / (1 - _LOSS) - 1)
    if unexplained >= SURE:
        return _of_something_else(profile, first, second, expected.median, unexplained)
    if profile.subject.device == "cpu" and own_use(profile) >= BUSY:
        lost = chance_above(first.rate.rounds, loop.rounds, 1 / (1 - _LOSS))
        if lost >= SURE:
            return _of_shared_processors(profile, lost)
    confidence = chance_clearly_above(second.rate.rounds, first.rate.rounds)
    if confidence < SURE:
        return _of_neither(profile, first, second, expected.median, confidence)
    return _of_side(profile, first, second, confidence)


def _ceilings(profile: Profile) -> list[_Ceiling]:
    """Of the loader and of the step, or of feeding that from the host, where it takes something from the step."""
    rates = profile.ceilings
    compute = _Ceiling("compute", rates.step)
    if rates.fed and chance_clearly_above(rates.step.rounds, rates.fed.rounds) >= SURE:
        # what computes cannot be the slower of the two then, and is no rival of the loader's
        compute = _Ceiling("copy", rates.fed)
    return [_Ceiling("data", rates.loader[profile.subject.workers]), compute]


def _without_waiting(profile: Profile) -> Rate:
    """The loop's rate without waiting for other ranks, which is another matter."""
    return profile.ceilings.no_sync or profile.ceilings.loop


def _of_side(profile: Profile, first: _Ceiling, second: _Ceiling, confidence: float) -> Verdict:
    choice = _stage_of(profile, first.side)
    loop = profile.ceilings.loop.median
    margin = second.rate.median / first.rate.median
    facts = (
        f"{ceiling_in_words(profile, first.side, first.rate)}, and the next ceiling, {named(second.side)}, is"
        f" {rate_text(second.rate.median)}"
    )
    if choice.stage is None:
        hidden = why_unnamed(profile) if first.side == "data" else ""
        why = hidden or ("its two heaviest stages weigh alike" if choice.next_one else "its stages cannot be seen")
        sentence = f"{bound(first.side)}: {facts}; the loop reaches {rate_text(loop)}. No stage is named, since {why}."
        advice = advise(profile, [UNSEEN] if hidden else [choice.next_one] if choice.next_one else [], False, loop)
        return Verdict(
            INCONCLUSIVE, first.side, first.rate.median, margin, confidence, choice.next_one, None, sentence, advice
        )
    stage = choice.stage
    runner_up = _next_limit(profile, stage, choice, second)
    sentence = (
        f"{bound(stage)}: {facts}, {margin:.1f} times as high; the loop reaches"
        f" {rate_text(loop)}{share_of_loop(profile, stage)}."
    )
    return Verdict(
        stage,
        first.side,
        first.rate.median,
        margin,
        choice.at_most(confidence),
        runner_up,
        None,
        sentence + first_epoch(profile),
        advise(profile, [name for name in dict.fromkeys((stage, choice.next_one)) if name], False, loop),
    )


def _of_shared_processors(profile: Profile, confidence: float) -> Verdict:
    ceilings = profile.ceilings
    loader, step, loop = ceilings.loader[profile.subject.workers], ceilings.step, ceilings.loop
    choice = heaviest_on_processors(profile.shown_rank)
    lower = min(loader.median, step.median)
    facts = (
        f"the loader alone gives {rate_text(loader.median)} img/s, the step alone takes {rate_text(step.median)}, but"
        f" on the same cores both reach {rate_text(loop.median)}"
    )
    known = {stage.name: stage.cpu_us for stage in profile.shown_rank.stages if stage.cpu_us is not None}
    total = sum(known.values())
    if choice.stage is None:
        why = "of its processor time no stage takes clearly the most" if choice.next_one else "stages are not seen"
        stage, sentence = INCONCLUSIVE, f"Shared processors: {facts}; {why}."
    else:
        share = known[choice.stage] / total
        stage = choice.stage
        sentence = f"{bound(stage)}, on shared processors: {facts}; {stage} takes {share:.0%} of their time."
    heavy = sorted(known, key=lambda name: -known[name])[:2]
    return Verdict(
        stage,
        "shared processors",
        loop.median,
        lower / loop.median,
        choice.at_most(confidence) if choice.stage else confidence,
        choice.next_one,
        None,
        sentence + first_epoch(profile),
        advise(profile, heavy, True, loop.median) if total > 0 else (),
    )


def _of_something_else(
    profile: Profile, first: _Ceiling, second: _Ceiling, expected: float, confidence: float
) -> Verdict:
    """The loop is surely slower than both sides let expect: neither is named, however far they are apart."""
    loop = _without_waiting(profile).median
    which = "the loop without exchange" if profile.ceilings.no_sync else "the loop"
    facts = (
        f"{ceiling_in_words(profile, first.side, first.rate)} and"
        f" {ceiling_in_words(profile, second.side, second.rate)}, but {which} reaches {rate_text(loop)}:"
        f" neither explains {1 - loop / expected:.0%} of its time"
    )
    sees_rest = any(stage.name == "other" for stage in computing_stages(profile.shown_rank))
    share = share_of_loop(profile, "other") if sees_rest else ""
    stage, sentence = "other", f"Other-bound: {facts}{share}."
    gain = min(expected / loop, gain_of_share(profile, stage))
    advice = tuple(Advice(item.text, gain) for item in advise(profile, [stage], False, loop))
    if not share:
        stage, advice = INCONCLUSIVE, (Advice("measure again with nothing else on this machine", None),)
        sentence = f"Inconclusive: {facts}. The run itself uses {own_use(profile):.0%} of the processors."
    runner_up = _stage_of(profile, first.side)
    return Verdict(
        stage,
        None,
        first.rate.median,
        second.rate.median / first.rate.median,
        confidence,
        runner_up.likeliest,
        None,
        sentence + first_epoch(profile),
        advice,
    )


def _of_neither(profile: Profile, first: _Ceiling, second: _Ceiling, expected: float, confidence: float) -> Verdict:
    stages = [_stage_of(profile, one.side) for one in (first, second)]
    is_fast = _without_waiting(profile).median >= (1 - _LOSS) * expected
    end = "Only both together would make it faster." if is_fast else "It may be something else that holds it up."
    sentence = (
        f"Inconclusive: {named(first.side)} at {rate_text(first.rate.median)} img/s and {named(second.side)} at"
        f" {rate_text(second.rate.median)} lie within {CLOSE:.0%} of each other or within the noise of this machine;"
        f" the loop reaches {rate_text(profile.ceilings.loop.median)}. {end}"
    )
    names = [choice.likeliest for choice in stages]
    advice = advise(profile, [name for name in names if name], False, profile.ceilings.loop.median)
    return Verdict(
        INCONCLUSIVE,
        None,
        first.rate.median,
        second.rate.median / first.rate.median,
        confidence,
        names[0],
        None,
        sentence,
        tuple(Advice(item.text, None) for item in advice),  # the one without the other brings nothing
    )


def _chance_of_storage(profile: Profile) -> float:
    """How sure it is that training is slower for reading from storage, which it then does in every epoch."""
    ceilings = profile.ceilings
    if profile.subject.fits_in_memory or ceilings.loop_cold is None:
        return 0.0
    return chance_clearly_above(ceilings.loop.rounds, ceilings.loop_cold.rounds)


def _of_storage(profile: Profile, confidence: float) -> Verdict:
    ceilings, subject = profile.ceilings, profile.subject
    assert ceilings.loop_cold is not None and subject.stored_bytes and subject.memory_bytes is not None
    cold, warm = ceilings.loop_cold.median, ceilings.loop.median
    limit = (ceilings.cold or ceilings.loop_cold).median
    sentence = (
        f"Read-bound: the set takes {bytes_text(subject.stored_bytes)}, more than the"
        f" {bytes_text(subject.memory_bytes)} of memory that are free, so every epoch reads from storage, where the"
        f" loop reaches {rate_text(cold)} img/s; from memory it is {rate_text(warm)}."
    )
    # memory does not hold it, and the sweep of workers was measured where nothing is read
    worth_trying = [remedy for remedy in remedies("read", run_of(profile)) if "--data.page-cache" not in remedy]
    advice = (Advice(f"read: {', or '.join([*worth_trying, 'more memory'])}", warm / cold),)
    first = min(_ceilings(profile), key=lambda one: one.rate.median)
    runner_up = _stage_of(profile, first.side)
    return Verdict(
        "read",
        "data",
        limit,
        warm / cold,
        confidence,
        runner_up.likeliest,
        None,
        sentence,
        advice,
    )


def _of_slow_rank(profile: Profile, slow: SlowRank) -> Verdict:
    world_size = profile.subject.world_size
    others = 1e6 * world_size / slow.others_us
    own = others / slow.margin
    where = f"{slow.stage} takes it {slow.excess_us / 1e3:,.2f} ms an image more" if slow.stage else "it waits for data"
    title = f"{bound(slow.stage)} on rank {slow.rank}" if slow.stage else f"Rank {slow.rank} is slow"
    sentence = (
        f"{title}: by itself this rank would keep the run at {rate_text(own)} img/s, the others reach"
        f" {rate_text(others)}; {where}. All ranks wait for it, whatever their own stages say."
    )
    advice: tuple[Advice, ...] = ()
    if slow.stage:
        host = profile.ranks[slow.rank].host
        text = (
            f"see what differs on rank {slow.rank} ({host}): another user of its processors, disk or GPU; {slow.stage}"
        )
        advice = (Advice(text, slow.margin),)
    side: Side = "data" if slow.stage is None or slow.stage in LOADER_STAGES else "compute"
    return Verdict(
        slow.stage or INCONCLUSIVE,
        "copy" if slow.stage == "copy" else side,
        own,
        slow.margin,
        slow.confidence,
        slow.next_one,
        slow.rank,
        sentence,
        advice,
    )


def _of_doubtful_rank(profile: Profile, slow: SlowRank) -> Verdict:
    """A stage that all ranks have in common is no answer while one of them may keep the others waiting."""
    others = 1e6 * profile.subject.world_size / slow.others_us
    sentence = (
        f"Inconclusive: rank {slow.rank} may be slow, since by itself it would keep the run at"
        f" {rate_text(others / slow.margin)} img/s and the others reach {rate_text(others)}, but rounds differ too much"
        f" to be sure ({slow.confidence:.0%}). Measure longer, or with nothing else on these machines."
    )
    return Verdict(
        INCONCLUSIVE, None, others / slow.margin, slow.margin, slow.confidence, slow.stage or "", None, sentence
    )


def _stage_of(profile: Profile, side: Side) -> Choice:
    if side == "copy":
        return Choice("copy", "", 1.0)
    if side == "data":
        return heaviest_of_loading(profile)
    return heaviest_of_computing(profile.shown_rank)


def _next_limit(profile: Profile, stage: str, choice: Choice, second: _Ceiling) -> str:
    """The stage that holds the loop back once `stage` takes no time: one of the same side, or the other side's."""
    if stage != "copy" and rate_without(profile, stage) < second.rate.median:
        return choice.next_one
    return _stage_of(profile, second.side).likeliest
