"""What would help, and how much at most: the loop's rate once a stage takes no time, which is then the next ceiling."""

from .bootstrap import SURE, chance_clearly_above
from .record import COMPUTE_STAGES, LOADER_STAGES, UNSEEN, Advice, Profile
from .remedies import Run, remedies
from .stage_costs import computing_without, loading_without

_OF_THE_REST = ["keeping averages of the weights less often (--average.ema-every-updates), where there are any"]


def run_of(profile: Profile) -> Run:
    """What decides which remedies the profiled run could take."""
    subject = profile.subject
    return Run(subject.loader, profile.config, subject.stored_as, subject.is_raw, subject.resize_modes)


def fed_limit(profile: Profile) -> float:
    """The most that the step takes, img/s, fed as it is."""
    ceilings = profile.ceilings
    return min(ceilings.step.median, ceilings.fed.median if ceilings.fed else float("inf"))


def rate_without(profile: Profile, stage: str) -> float:
    """What the loop would reach, img/s, at most, if `stage` took no time: the ceiling that then is the lowest."""
    ceilings, subject = profile.ceilings, profile.subject
    loading, computing = ceilings.loader[subject.workers].median, fed_limit(profile)
    if stage == "copy" and ceilings.fed:
        computing = ceilings.step.median
    elif stage in LOADER_STAGES:
        loading = loading_without(profile, stage)
    elif stage in (*COMPUTE_STAGES, "other"):
        computing = min(computing_without(profile, stage), ceilings.fed.median if ceilings.fed else float("inf"))
    return min(loading, computing)


def rate_without_on_shared(profile: Profile, stage: str) -> float:
    """The same where loading and computing use the same processors: their time is what is saved."""
    known = {one.name: one.cpu_us for one in profile.shown_rank.stages if one.cpu_us is not None}
    left = 1 - known.get(stage, 0.0) / sum(known.values())
    ceilings = profile.ceilings
    most = max(ceilings.loader[profile.subject.workers].median, ceilings.step.median)
    return min(ceilings.loop.median / left if left > 0 else float("inf"), most)


def advise(profile: Profile, stages: list[str], shared: bool, loop: float) -> tuple[Advice, ...]:
    """What to do about `stages`, and about the number of workers, the largest gain first. `loop`: its rate now."""
    advice = []
    for stage in stages:
        limit = (rate_without_on_shared if shared else rate_without)(profile, stage)
        gain = min(limit / loop, gain_of_share(profile, stage))
        # nothing is logged or saved while a profile is taken: that is not what is left of its loop
        known = _OF_THE_REST if stage == "other" else remedies(stage, run_of(profile))
        text = f"{stage}: {', or '.join(known) or 'nothing that is known'}"
        # of what is not seen nobody knows how long it takes
        advice.append(Advice(text, gain if 1 < gain < float("inf") and stage != UNSEEN else None))
    if not shared and any(stage in (*LOADER_STAGES, UNSEEN) for stage in stages):
        advice += _of_workers(profile, loop)
    return tuple(sorted(advice, key=lambda item: -(item.gain or 0.0)))


def gain_of_share(profile: Profile, stage: str) -> float:
    """What the loop gains where a stage of the step is gone from it, by that stage's share of its time.

    The rates are of turns apart, and between them this machine may have been slow. What the loop waits for hides
    behind what it does meanwhile, so a share bounds nothing of the loader's stages.
    """
    record = profile.shown_rank.stage(stage)
    share = record.critical_share if record and stage in (*COMPUTE_STAGES, "other") else None
    return float("inf") if share is None or share >= 1 else 1 / (1 - share)


def _of_workers(profile: Profile, loop: float) -> list[Advice]:
    """The number of workers in the sweep that loads fastest, where it is surely faster than the configured one."""
    loader, workers = profile.ceilings.loader, profile.subject.workers
    best = max(loader, key=lambda number: loader[number].median)
    if best == workers or chance_clearly_above(loader[best].rounds, loader[workers].rounds) < SURE:
        return []
    limit = min(loader[best].median, fed_limit(profile))
    gain = limit / loop
    return [Advice(f"{best} workers in place of {workers} (--data.workers {best})", gain if gain > 1 else None)]
