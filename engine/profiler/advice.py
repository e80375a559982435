"""What would help, and how much at most: the loop's rate once a stage takes no time, which is then the next ceiling."""

from .record import COMPUTE_STAGES, LOADER_STAGES, Advice, Profile
from .resampling import SURE, chance_clearly_above
from .stage_costs import computing_without, loading_without

REMEDIES = {
    "read": "keep the packed set in memory (--data.page-cache memory), read it in long runs (--data.order block), or"
    " move it to faster storage",
    "decode": "pack the set smaller (tools/convert.py --preset 256, or --to raw with no decoding at all), or take"
    " --loader turbo, which decodes only what a crop needs",
    "augment": "resize less: smaller stored images (tools/convert.py --preset 256) or --data.resize area or device",
    "collate": "take --loader turbo, whose workers write straight into the batch",
    "hand-off": "take --loader turbo, whose threads hand nothing over between processes, or more --data.batches-ahead",
    "pin": "take --loader turbo, which makes batches in page-locked memory",
    "copy": "send fewer bytes (smaller --data.size-px), or keep a small set on the device (--loader resident)",
    "prepare": "fewer operations on the device under --augment",
    "forward": "mixed precision (--execution.precision bf16), --execution.compile, or a smaller model",
    "backward": "mixed precision (--execution.precision bf16), --execution.compile, or a smaller model",
    "sync": "exchange gradients less often (--optim.accumulate), or more images a rank at a time",
    "clip": "no clipping (--optim.clip-norm 0), or fewer updates (--optim.accumulate)",
    "optimizer": "a cheaper optimizer (--optim.name sgd), or fewer updates (--optim.accumulate)",
    "other": "log and save less often (--run.log-every-steps, --run.checkpoint-every-epochs)",
}


def fed_limit(profile: Profile) -> float:
    """The most that the step takes, img/s, fed as it is."""
    ceilings = profile.ceilings
    return min(ceilings.step.median, ceilings.fed.median if ceilings.fed else float("inf"))


def rate_without(profile: Profile, stage: str) -> float:
    """What the loop would reach, img/s, at most, if `stage` took no time: the ceiling that then is the lowest."""
    ceilings, subject = profile.ceilings, profile.subject
    loading, computing = ceilings.loader[subject.workers].median, fed_limit(profile)
    if stage == "copy":
        computing = ceilings.step.median
    elif stage in LOADER_STAGES:
        loading = loading_without(profile, stage)
    elif stage in COMPUTE_STAGES:
        computing = min(computing_without(profile, stage), ceilings.fed.median if ceilings.fed else float("inf"))
    return min(loading, computing)


def rate_without_on_shared(profile: Profile, stage: str) -> float:
    """The same where loading and computing use the same processors: their time is what is saved."""
    known = {one.name: one.cpu_us for one in profile.told.stages if one.cpu_us is not None}
    left = 1 - known.get(stage, 0.0) / sum(known.values())
    ceilings = profile.ceilings
    most = max(ceilings.loader[profile.subject.workers].median, ceilings.step.median)
    return min(ceilings.loop.median / left if left > 0 else float("inf"), most)


def advise(profile: Profile, stages: list[str], shared: bool, loop: float) -> tuple[Advice, ...]:
    """What to do about `stages`, and about the number of workers, the largest gain first. `loop`: its rate now."""
    advice = []
    for stage in stages:
        limit = (rate_without_on_shared if shared else rate_without)(profile, stage)
        gain = limit / loop
        advice.append(Advice(f"{stage}: {REMEDIES[stage]}", gain if 1 < gain < float("inf") else None))
    if not shared and any(stage in LOADER_STAGES for stage in stages):
        advice += _of_workers(profile, loop)
    return tuple(sorted(advice, key=lambda item: -(item.gain or 0.0)))


def _of_workers(profile: Profile, loop: float) -> list[Advice]:
    """The number of workers in the sweep that loads fastest, where it is surely faster than the configured one."""
    loader, workers = profile.ceilings.loader, profile.subject.workers
    best = max(loader, key=lambda number: loader[number].median)
    if best == workers or chance_clearly_above(loader[best].rounds, loader[workers].rounds) < SURE:
        return []
    limit = min(loader[best].median, fed_limit(profile))
    gain = limit / loop
    return [Advice(f"{best} workers in place of {workers} (--data.workers {best})", gain if gain > 1 else None)]
